//! Many damaged copies of one small directory, each opened once: without a process for each of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::path::Path;

use raft_engine::Engine;

use crate::{config, dump, mode, Fail};

type Files = BTreeMap<String, Vec<u8>>;

pub fn run(src: &Path, options: &[&str]) -> Result<(), Fail> {
    let mut files = Files::new();
    for f in fs::read_dir(src)? {
        let f = f?;
        if fs::metadata(f.path())?.is_file() {
            let name = f.file_name().into_string().map_err(|n| format!("{n:?}"))?;
            files.insert(name, fs::read(f.path())?);
        }
    }
    // A panic is one of the answers.
    set_hook(Box::new(|_| {}));
    let dir = std::env::temp_dir().join(format!("raftengine-trials-{}", std::process::id()));
    let out = &mut std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        trial(&files, &dir, options, &line, out).map_err(|e| format!("{line}: {e}"))?;
    }
    Ok(())
}

fn trial(
    files: &Files,
    dir: &Path,
    options: &[&str],
    line: &str,
    out: &mut impl Write,
) -> Result<(), Fail> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (mode_name, damage) = words.split_first().ok_or("an empty line")?;
    let (name, content) = match damage {
        ["flip", file, offset, mask] => {
            let mut b = files.get(*file).ok_or("no such file")?.clone();
            *b.get_mut(offset.parse::<usize>()?)
                .ok_or("beyond the end")? ^= mask.parse::<u8>()?;
            (*file, b)
        }
        ["cut", file, len] => {
            let b = files.get(*file).ok_or("no such file")?;
            let b = b.get(..len.parse::<usize>()?).ok_or("beyond the end")?;
            (*file, b.to_vec())
        }
        ["none"] => ("", vec![]),
        _ => return Err("unknown damage".into()),
    };
    fs::create_dir(dir)?;
    for (f, b) in files {
        fs::write(dir.join(f), if f == name { &content } else { b })?;
    }
    let mut c = config(dir, options)?;
    c.recovery_mode = mode(mode_name)?;
    match caught(|| Ok(Engine::open(c)?)) {
        Err(e) => writeln!(out, "end refused {e}")?,
        Ok(engine) => {
            let mut text = vec![];
            let read = caught(|| dump(&engine, &mut text));
            out.write_all(&text)?;
            match read {
                Ok(()) => writeln!(out, "end ok")?,
                Err(e) => writeln!(out, "end unreadable {e}")?,
            }
        }
    }
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Runs f and makes one line of its error or panic.
fn caught<T>(f: impl FnOnce() -> Result<T, Fail>) -> Result<T, String> {
    let why = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(v)) => return Ok(v),
        Ok(Err(e)) => e.to_string(),
        Err(p) => match (p.downcast_ref::<String>(), p.downcast_ref::<&str>()) {
            (Some(s), _) => format!("panic: {s}"),
            (_, Some(s)) => format!("panic: {s}"),
            _ => "panic".to_owned(),
        },
    };
    Err(why.replace('\n', " "))
}
