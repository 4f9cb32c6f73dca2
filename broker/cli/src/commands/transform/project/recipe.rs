//! How a module is made of a project, for each language. Versions stand in the SDK; what is missing is named with the package that has it.

use super::{Language, World};
use crate::{
    failure::{Failure, Outcome},
    progress::Spinner,
};
use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Makes `module`, a path within the project.
pub(super) fn run(project: &Path, lang: Language, world: World, module: &Path) -> Outcome {
    let recipe = Recipe { project, module, world };
    fs::create_dir_all(project.join("build")).map_err(|error| Failure::new("can't make the folder build").because(&error))?;
    match lang {
        Language::Rust => recipe.rust(),
        Language::Python => recipe.python(),
        Language::Js => recipe.js(),
        Language::C => recipe.c(),
    }
}

struct Recipe<'a> {
    project: &'a Path,
    module: &'a Path,
    world: World,
}

impl Recipe<'_> {
    fn rust(&self) -> Outcome {
        const BUILT: &str = "wasm32-unknown-unknown/release/guest.wasm";
        let _spinner = Spinner::start("building with cargo".to_owned());
        let target_dir =
            fs::canonicalize(self.project).map_err(|error| Failure::new("can't find the project").because(&error))?.join("build/cargo");
        let mut cargo = if has_target()? {
            self.command("cargo")
        } else if let Some(debian) = self.debian() {
            debian
        } else {
            return Err(Failure::new("there is no standard library of Rust for WebAssembly")
                .cause(format!("no libstd for {TARGET} in the folder that `rustc --print target-libdir` names"))
                .hint(format!("run `rustup target add {TARGET}`, or install Debian's packages rustc-web, cargo-web and rust-web-src")));
        };
        cargo.args(["build", "--release", "--target", TARGET]).arg("--target-dir").arg(&target_dir);
        run_quietly(cargo, CARGO)?;
        fs::copy(target_dir.join(BUILT), self.project.join(self.module))
            .map_err(|error| Failure::new("can't copy what cargo has built").because(&error))?;
        Ok(())
    }

    /// Debian's second Rust, which builds the standard library from its source.
    fn debian(&self) -> Option<Command> {
        if !Path::new("/usr/bin/cargo").exists() {
            return None;
        }
        let sysroot = |rustc: &str| -> Option<PathBuf> {
            let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().into())
        };
        if !sysroot("/usr/bin/rustc")?.join("lib/rustlib/src/rust/library/std").exists() {
            return None;
        }
        let host = sysroot("rustc")?.join("lib/rustlib");
        let bundled =
            fs::read_dir(host).into_iter().flatten().flatten().map(|entry| entry.path().join("bin/rust-lld")).find(|path| path.exists());
        let linker = bundled.unwrap_or_else(|| "wasm-ld".into());
        let mut cargo = self.command("/usr/bin/cargo");
        cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        cargo.arg("-Zbuild-std=std,panic_abort");
        Some(cargo)
    }

    fn python(&self) -> Outcome {
        let python = python_with(&self.project.join("sdk-python/requirements.txt"))?;
        let _spinner = Spinner::start("building with componentize-py".to_owned());
        let mut command = self.command(&python);
        command.args(["sdk-python/build.py", "guest.py"]).arg(self.module).arg(self.world.name());
        run_quietly(command, PYTHON)?;
        Ok(())
    }

    fn c(&self) -> Outcome {
        let python = python_with(&self.project.join("sdk-c/requirements.txt"))?;
        let _spinner = Spinner::start("building with zig; the first time its C library too".to_owned());
        let mut command = self.command("bash");
        command.env("ZIG_PYTHON", &python).args(["sdk-c/build.sh", "guest.c"]).arg(self.module).arg(self.world.name());
        run_quietly(command, BASH)?;
        Ok(())
    }

    fn js(&self) -> Outcome {
        let sdk = self.project.join("sdk-js");
        let (lock, installed) = (fs::read(sdk.join("package-lock.json")), fs::read(sdk.join("node_modules/.installed")));
        let lock = lock.map_err(|error| Failure::new("the project has no sdk-js/package-lock.json").because(&error))?;
        if installed.ok().as_ref() != Some(&lock) {
            let _spinner = Spinner::start("installing componentize-qjs".to_owned());
            let mut command = Command::new("npm");
            command.args(["ci", "--no-audit", "--no-fund"]).current_dir(&sdk);
            run_quietly(command, NPM)?;
            fs::write(sdk.join("node_modules/.installed"), &lock)
                .map_err(|error| Failure::new("can't write to node_modules").because(&error))?;
        }
        let _spinner = Spinner::start("building with componentize-qjs".to_owned());
        let mut command = self.command("node");
        command.args(["sdk-js/build.mjs", "guest.js"]).arg(self.module).arg(self.world.name());
        run_quietly(command, NODE)?;
        Ok(())
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.project);
        command
    }
}

/// A program, and where it comes from.
#[derive(Clone, Copy)]
struct Tool {
    name: &'static str,
    install: &'static str,
}

const CARGO: Tool = Tool { name: "cargo", install: "install Rust: rustup (https://rustup.rs), or Debian's package cargo" };
const PYTHON: Tool = Tool { name: "python3", install: "install Python: Debian's packages python3 and python3-venv" };
const BASH: Tool = Tool { name: "bash", install: "install Debian's package bash" };
const NPM: Tool = Tool { name: "npm", install: "install Node.js: Debian's packages nodejs and npm" };
const NODE: Tool = Tool { name: "node", install: "install Node.js: Debian's package nodejs" };

/// Runs a command; what it prints is shown only if it fails.
fn run_quietly(mut command: Command, tool: Tool) -> Outcome<Output> {
    let output = command.output().map_err(|error| {
        let failure = Failure::new(format!("can't run {}", tool.name)).because(&error);
        if error.kind() == io::ErrorKind::NotFound { failure.hint(tool.install) } else { failure }
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    Err(Failure::new(format!("{} ended with {}", tool.name, output.status))
        .cause(printed.trim().to_owned())
        .hint("the lines above are its own"))
}

/// Whether the Rust that is found first has a standard library for WebAssembly.
fn has_target() -> Outcome<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let output = run_quietly(rustc, Tool { name: "rustc", ..CARGO })?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let is_std = |name: &OsStr| name.to_string_lossy().starts_with("libstd-");
    Ok(fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| is_std(&entry.file_name())))
}

/// A Python that has what a file requires: one package in one version, such as `ziglang==0.17.1`. It is installed the first time, for all
/// projects together.
fn python_with(requirements: &Path) -> Outcome<PathBuf> {
    let text = fs::read_to_string(requirements);
    let text = text.map_err(|error| Failure::new(format!("can't read {}", requirements.display())).because(&error))?;
    let package = text.trim();
    let folder = tools_folder()?.join(package.replacen("==", "-", 1));
    let python = folder.join("bin/python");
    if folder.join("installed").exists() {
        return Ok(python);
    }
    let _spinner = Spinner::start(format!("installing {package} to {}", folder.display()));
    let failed = |error: io::Error| Failure::new(format!("can't write to {}", folder.display())).because(&error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    run_quietly(venv, PYTHON).map_err(|failure| failure.hint(PYTHON.install))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-compile", package]);
    let hint = format!("{package} comes from PyPI: is it reachable, or a mirror of it set with `pip config`?");
    run_quietly(pip, Tool { name: "pip", install: PYTHON.install }).map_err(|failure| failure.hint(hint))?;
    fs::write(folder.join("installed"), "").map_err(failed)?;
    Ok(python)
}

fn tools_folder() -> Outcome<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let in_cache = |cache: PathBuf| cache.join("millpond/tools");
    let folder = variable("MILLPOND_TOOLS").or_else(|| variable("XDG_CACHE_HOME").map(in_cache));
    let folder = folder.or_else(|| variable("HOME").map(|home| in_cache(home.join(".cache"))));
    folder.ok_or_else(|| Failure::usage("there is no folder to install tools to").hint("set MILLPOND_TOOLS, or HOME"))
}

const TARGET: &str = "wasm32-unknown-unknown";
