//! The unique name and the folder of one scenario, the programs under test, and the environment variables of the test run.

use std::path::{Path, PathBuf};
use std::{env, fs, io, thread};

use anyhow::Context as _;
use uuid::Uuid;

/// Name and folder of one scenario. The folder is removed after success and kept after a failure, so that logs can be read.
#[derive(Debug)]
pub(crate) struct Place {
    /// Short, unique, and valid as (part of) the name of a database, an index, a server and a folder.
    pub name: String,
    /// Holds the logs of all processes and the data of NATS and Redis.
    pub folder: PathBuf,
}

impl Place {
    /// Picks a random name and creates the folder.
    pub fn new() -> anyhow::Result<Self> {
        // libtest names each test's thread after the test.
        let title = thread::current().name().unwrap_or("scenario").rsplit("::").next().unwrap_or("scenario").to_owned();
        let mut unique = Uuid::new_v4().simple().to_string();
        unique.truncate(12);
        let name = format!("scenario-{unique}");
        let folder = target_folder()?.join("scenarios").join(format!("{title}-{unique}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { name, folder })
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

/// Returns the folder that cargo builds this profile's programs into.
fn target_folder() -> anyhow::Result<PathBuf> {
    // …/target/debug/deps/scenarios-0123456789abcdef
    let test = env::current_exe()?;
    let folder = test.ancestors().nth(2).context("the test binary is not in target/<profile>/deps")?;
    Ok(folder.to_owned())
}

/// Returns the path of a program that `cargo test --workspace` has built beside this test.
pub(crate) fn built(program: &str) -> anyhow::Result<PathBuf> {
    existing(target_folder()?.join(program), "build it with `cargo build --workspace`")
}

/// Returns an environment variable of the test run, or an error that says how to set it.
pub(crate) fn setting(variable: &str) -> anyhow::Result<String> {
    env::var(variable).ok().with_context(|| {
        format!(
            "{variable} is not set: scenarios need running servers; run `make test`, which starts them and sets this variable"
        )
    })
}

/// Returns the path of an existing file that an environment variable of the test run names.
pub(crate) fn file(variable: &str) -> anyhow::Result<PathBuf> {
    existing(PathBuf::from(setting(variable)?), &format!("its path comes from {variable}"))
}

fn existing(path: PathBuf, hint: &str) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(Path::is_file(&path), "{} is missing; {hint}", path.display());
    Ok(path)
}
