//! The door: hands the arguments to `cli` and turns its verdict into an exit code.

fn main() -> std::process::ExitCode {
    weir::cli::main(std::env::args_os())
}
