//! The programs of the examples.

use std::path::PathBuf;
use std::process::Command as Build;

/// The program of an example, beside this test's own. Cargo builds it with all tests; where only this test was asked for,
/// it is built here.
pub fn example(name: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let test = std::env::current_exe()?;
    let profile =
        test.parent().and_then(|deps| deps.parent()).ok_or("tests live in target/<profile>/deps")?;
    let program = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        let profile_name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
        let mut build = Build::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "netchan", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().ok_or("the target directory")?);
        if profile_name != "debug" {
            build.args(["--profile", profile_name]);
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
        assert!(built.success() && program.is_file(), "{} was not built", program.display());
    }
    Ok(program)
}
