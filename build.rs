//! Compiles proto/ without protoc, checks the rules of the API and generates into `OUT_DIR`:
//! `rolecall.v1.rs` (messages, servers, clients), `rules.rs` (who may call what), `impls.rs`
//! (mutations and redaction) and `rolecall_descriptor.bin` (what reflection serves).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use prost_reflect::DescriptorPool;

#[path = "build/impls.rs"]
mod impls;
#[path = "build/rules.rs"]
mod rules;

const ROOT: &str = "proto";
const PACKAGE_DIR: &str = "rolecall/v1";
/// Holds only options; `src/proto.rs` has its own types for them.
const OPTIONS_FILE: &str = "rolecall/v1/access.proto";

fn main() -> ExitCode {
    // The migrations are part of the program, too: `src/db.rs` embeds them.
    for path in ["build.rs", "build", ROOT, "migrations"] {
        println!("cargo::rerun-if-changed={path}");
    }
    match run() {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                println!("cargo::error={problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("cargo::error={}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

/// Generates everything, or returns what is wrong with the API.
fn run() -> Result<Vec<String>, Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "cargo tells the folder only so")]
    let out = env::var_os("OUT_DIR").map(PathBuf::from).ok_or("run it with cargo")?;
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(false);
    // Only `Debug` says where in which file.
    compiler.open_files(proto_files()?).map_err(|error| format!("{error:?}"))?;

    let descriptor = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(descriptor.as_slice())?;
    let api = match rules::read(&pool) {
        Ok(api) => api,
        Err(problems) => return Ok(problems),
    };
    fs::write(out.join("rolecall_descriptor.bin"), descriptor)?;
    fs::write(out.join("rules.rs"), rules::generate(&api))?;
    fs::write(out.join("impls.rs"), impls::generate(&pool, &api))?;

    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| file.name() != OPTIONS_FILE);
    let mut generator = tonic_prost_build::configure();
    for oneof in impls::secret_messages(&pool).flat_map(|m| m.oneofs().collect::<Vec<_>>()) {
        // `skip_debug` of a message also takes the `Debug` of its oneofs, which hold no secrets.
        let path = format!(".{}", oneof.full_name());
        generator = generator.type_attribute(path, "#[derive(Debug)]");
    }
    generator
        .btree_map(".")
        .skip_debug(
            impls::secret_messages(&pool).map(|message| format!(".{}", message.full_name())),
        )
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(Vec::new())
}

fn proto_files() -> Result<Vec<String>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(Path::new(ROOT).join(PACKAGE_DIR))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".proto") {
            files.push(format!("{PACKAGE_DIR}/{name}"));
        }
    }
    files.sort();
    Ok(files)
}
