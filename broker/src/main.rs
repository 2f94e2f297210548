//! `dunlin`: the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match dunlin::cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("dunlin: {error}");
            return ExitCode::from(2);
        }
    };
    match dunlin::cli::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin: {error}");
            ExitCode::FAILURE
        }
    }
}
