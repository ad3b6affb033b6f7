//! Where one scenario takes place: a name that nobody else has, and a folder for logs and data.

use std::path::{Path, PathBuf};
use std::{env, fs, io, thread};

use anyhow::Context as _;
use uuid::Uuid;

/// The folder is removed when the scenario went well; otherwise it stays, for whoever looks into the failure.
#[derive(Debug)]
pub(crate) struct Place {
    /// Short, unique, and fit for the name of a database, an index, a server and a folder.
    pub name: String,
    pub folder: PathBuf,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        // libtest names each test's thread after the test.
        let title = thread::current().name().unwrap_or("scenario").rsplit("::").next().unwrap_or("scenario").to_owned();
        let mut unique = Uuid::new_v4().simple().to_string();
        unique.truncate(12);
        let name = format!("scenario-{unique}");
        let folder = target_folder()?.join("scenarios").join(format!("{title}-{unique}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { name, folder })
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

/// The folder that cargo builds this profile's programs into.
fn target_folder() -> anyhow::Result<PathBuf> {
    // …/target/debug/deps/scenarios-0123456789abcdef
    let test = env::current_exe()?;
    let folder = test.ancestors().nth(2).context("a test lies two folders deep in the target folder")?;
    Ok(folder.to_owned())
}

/// A program that `cargo test --workspace` has built beside this test.
pub(crate) fn built(program: &str) -> anyhow::Result<PathBuf> {
    existing(target_folder()?.join(program), "build it with `cargo build --workspace`")
}

/// A setting of the test run.
pub(crate) fn setting(variable: &str) -> anyhow::Result<String> {
    env::var(variable).ok().with_context(|| {
        format!("{variable} is not set: scenarios need servers of their own; run `make test`, which starts them and says where they are")
    })
}

/// A file that the test run names.
pub(crate) fn file(variable: &str) -> anyhow::Result<PathBuf> {
    existing(PathBuf::from(setting(variable)?), &format!("it is named by {variable}"))
}

fn existing(path: PathBuf, hint: &str) -> anyhow::Result<PathBuf> {
    anyhow::ensure!(Path::is_file(&path), "{} is missing; {hint}", path.display());
    Ok(path)
}
