//! The binary: a runtime around [`k8s_token::main`].

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let _ = writeln!(stderr(), "k8s-token: the async runtime cannot be started: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let terminal = stderr().is_terminal();
    let running = k8s_token::main(std::env::args_os(), Box::new(stdout()), Box::new(stderr()), terminal);
    let exit = runtime.block_on(running);
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(exit as u8)
}
