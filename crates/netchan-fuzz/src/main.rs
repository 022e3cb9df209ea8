//! Runs inputs through a fuzz target without a fuzzer, or writes the seeds of all corpora.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use netchan_fuzz::{TARGETS, seeds, target};

const USAGE: &str = "netchan-fuzz TARGET FILE...   runs the files through a target
netchan-fuzz --seeds DIRECTORY  writes seeds into a directory for each target there
netchan-fuzz --list             names the targets, each with the length of its longest input";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match &arguments[..] {
        [list] if list == "--list" => {
            TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.bytes_max));
            Ok(())
        }
        [flag, directory] if flag == "--seeds" => write_seeds(Path::new(directory)),
        [name, files @ ..] if !files.is_empty() => match target(name) {
            Some(target) => files.iter().try_for_each(|file| {
                let bytes = fs::read(file)?;
                println!("{name}: {file}, {} bytes", bytes.len());
                (target.run)(&bytes);
                Ok(())
            }),
            None => Err(io::Error::other(format!("there is no target {name:?}; try --list"))),
        },
        _ => Err(io::Error::other(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write_seeds(directory: &Path) -> io::Result<()> {
    for seed in seeds::all() {
        let directory: PathBuf = directory.join(seed.target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("seed-{}", seed.name)), seed.bytes)?;
    }
    Ok(())
}
