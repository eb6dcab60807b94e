//! The binary: a runtime around [`k8s_token::main`].

use std::{
    io::{IsTerminal as _, stderr, stdout},
    process::ExitCode,
};

use anyhow::Context as _;

fn main() -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")?;
    let terminal = stderr().is_terminal();
    let running = k8s_token::main(std::env::args_os(), Box::new(stdout()), Box::new(stderr()), terminal);
    let exit = runtime.block_on(running);
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    Ok(ExitCode::from(exit as u8))
}
