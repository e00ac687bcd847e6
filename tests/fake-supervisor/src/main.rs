//! See the library.

fn main() -> anyhow::Result<std::process::ExitCode> {
    fake_supervisor::run()
}
