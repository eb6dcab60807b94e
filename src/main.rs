//! The binary: a runtime around [`k8s_token::main`].

use std::{
    io::{stderr, stdout},
    process::ExitCode,
};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let exit = match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(k8s_token::main(std::env::args_os(), Box::new(stdout()), Box::new(stderr())));
            // A name that is being resolved must not hold up the end.
            runtime.shutdown_background();
            exit
        }
        Err(_) => k8s_token::error::Exit::Failed,
    };
    ExitCode::from(exit as u8)
}
