//! TiKV's own raft-engine as a judge: what does it hold after opening a directory, and what does it make of one that
//! tikv-repair has edited?
//!
//!     raftengine-judge dump SRC [option=value...]
//!     raftengine-judge run SRC DEST [option=value...] < script
//!     raftengine-judge trials SRC [option=value...] < trials
//!
//! Opening an engine writes (it truncates tails, makes a LOCK, recycles files), so SRC is never opened: `dump` works on a
//! copy that it removes again, `run` on the copy DEST, which must not exist. A SRC that does not exist gives an empty engine.
//!
//! A script has one command a line; regions and indexes are decimal, bytes are hex ("-" for none):
//!
//!     entries REGION HEX...    eraftpb.Entry messages, byte for byte
//!     put REGION KEY VALUE     delete REGION KEY     clean REGION     compact REGION INDEX
//!     write                    writes the operations since the last one as one synced log batch
//!     rewrite [append|rewrite] moves everything out of a queue; then purge
//!     purge                    purge_expired_files
//!     reopen                   close and open again
//!     spans                    prints the first and last file number of each queue
//!     dump                     prints what the engine holds
//!
//! A trial is one line, a recovery mode and what to do to one file of SRC: "flip FILE OFFSET MASK" (XOR with a decimal byte), "cut
//! FILE LENGTH", or "none". The engine opens a fresh copy, and the answer is what it holds, then one line:
//!
//!     end ok                   it opened, and every entry was read
//!     end refused WHY          it did not open
//!     end unreadable WHY       it opened, and something that it holds cannot be read
//!
//! A dump is canonical: regions ascending, keys in byte order.
//!
//!     region ID first INDEX last INDEX     or: region ID empty
//!     entry INDEX term TERM len BYTES crc CRC32-OF-THE-BYTES
//!     key KEY VALUE

mod entry;
mod trials;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::exit;

use entry::{Opaque, RawEntry};
use raft_engine::internals::LogQueue;
use raft_engine::{Command, Config, Engine, LogBatch, ReadableSize, RecoveryMode, Version};

type Fail = Box<dyn std::error::Error>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["dump", src, options @ ..] => dump_copy(Path::new(src), options),
        ["run", src, dest, options @ ..] => run(Path::new(src), Path::new(dest), options),
        ["trials", src, options @ ..] => trials::run(Path::new(src), options),
        _ => Err("usage: dump SRC [option=value...] | run SRC DEST [option=value...] | trials SRC [option=value...]".into()),
    };
    if let Err(e) = done {
        eprintln!("{e}");
        exit(1);
    }
}

fn dump_copy(src: &Path, options: &[&str]) -> Result<(), Fail> {
    let dest = std::env::temp_dir().join(format!("raftengine-judge-{}", std::process::id()));
    copy(src, &dest)?;
    // Remove the copy before anything is returned; a panic of the engine leaves it, to be looked at.
    let result = open(&dest, options).and_then(|e| dump(&e, &mut std::io::stdout().lock()));
    fs::remove_dir_all(&dest)?;
    result
}

/// Copies the files of a raft-engine directory; what is no file (swap/) has no meaning for an engine that is closed.
fn copy(src: &Path, dest: &Path) -> Result<(), Fail> {
    fs::create_dir(dest)?;
    if !src.exists() {
        return Ok(());
    }
    for f in fs::read_dir(src)? {
        let f = f?;
        if fs::metadata(f.path())?.is_file() {
            fs::write(dest.join(f.file_name()), fs::read(f.path())?)?;
        }
    }
    Ok(())
}

fn config(dir: &Path, options: &[&str]) -> Result<Config, Fail> {
    let mut c = Config {
        dir: dir.to_str().ok_or("the path is not UTF-8")?.to_owned(),
        ..Config::default()
    };
    for o in options {
        let (name, value) = o.split_once('=').ok_or_else(|| format!("option {o:?}"))?;
        match name {
            "target-file-size" => c.target_file_size = ReadableSize(value.parse()?),
            "purge-threshold" => c.purge_threshold = ReadableSize(value.parse()?),
            "compression-threshold" => c.batch_compression_threshold = ReadableSize(value.parse()?),
            "recovery-threads" => c.recovery_threads = value.parse()?,
            "recycle" => c.enable_log_recycle = value.parse()?,
            "recovery-mode" => c.recovery_mode = mode(value)?,
            // Opened as it is: whoever asks gives a copy.
            "spill-dir" => c.spill_dir = Some(value.to_owned()),
            "version" => {
                c.format_version = if value == "1" {
                    Version::V1
                } else {
                    Version::V2
                }
            }
            _ => return Err(format!("option {o:?}").into()),
        }
    }
    Ok(c)
}

fn mode(name: &str) -> Result<RecoveryMode, Fail> {
    match name {
        "absolute-consistency" => Ok(RecoveryMode::AbsoluteConsistency),
        "tolerate-tail-corruption" => Ok(RecoveryMode::TolerateTailCorruption),
        "tolerate-any-corruption" => Ok(RecoveryMode::TolerateAnyCorruption),
        _ => Err(format!("recovery mode {name:?}").into()),
    }
}

fn open(dir: &Path, options: &[&str]) -> Result<Engine, Fail> {
    Ok(Engine::open(config(dir, options)?)?)
}

fn run(src: &Path, dest: &Path, options: &[&str]) -> Result<(), Fail> {
    copy(src, dest)?;
    let mut s = Session {
        dir: dest.to_owned(),
        options,
        engine: Some(open(dest, options)?),
        batch: LogBatch::default(),
    };
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        s.command(&line)
            .map_err(|e| format!("line {}, {line:.80}: {e}", n + 1))?;
    }
    Ok(())
}

struct Session<'a> {
    dir: PathBuf,
    options: &'a [&'a str],
    engine: Option<Engine>, // none only while it is reopened
    batch: LogBatch,
}

impl Session<'_> {
    fn command(&mut self, line: &str) -> Result<(), Fail> {
        let engine = self.engine.as_ref().ok_or("the engine is closed")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["entries", region, list @ ..] => {
                let list: Vec<RawEntry> = list
                    .iter()
                    .map(|h| Ok(RawEntry::new(unhex(h)?)))
                    .collect::<Result<_, Fail>>()?;
                self.batch.add_entries::<Opaque>(region.parse()?, &list)?;
            }
            ["put", region, key, value] => {
                self.batch
                    .put(region.parse()?, unhex(key)?, unhex(value)?)?
            }
            ["delete", region, key] => self.batch.delete(region.parse()?, unhex(key)?),
            ["clean", region] => self.batch.add_command(region.parse()?, Command::Clean),
            ["compact", region, index] => {
                let index = index.parse()?;
                self.batch
                    .add_command(region.parse()?, Command::Compact { index })
            }
            ["write"] => {
                let mut b = std::mem::take(&mut self.batch);
                engine.write(&mut b, true)?;
            }
            ["rewrite"] | ["rewrite", "append"] => {
                engine.purge_manager().must_rewrite_append_queue(None, None)
            }
            ["rewrite", "rewrite"] => engine.purge_manager().must_rewrite_rewrite_queue(),
            ["purge"] => {
                engine.purge_expired_files()?;
            }
            ["reopen"] => {
                self.engine = None; // the lock goes with it
                self.engine = Some(open(&self.dir, self.options)?);
            }
            ["spans"] => {
                for (name, queue) in [("append", LogQueue::Append), ("rewrite", LogQueue::Rewrite)]
                {
                    let (first, last) = engine.file_span(queue);
                    println!("{name} {first} {last}");
                }
            }
            ["dump"] => dump(engine, &mut std::io::stdout().lock())?,
            _ => return Err("unknown command".into()),
        }
        Ok(())
    }
}

fn dump(engine: &Engine, out: &mut impl Write) -> Result<(), Fail> {
    let mut regions = engine.raft_groups();
    regions.sort_unstable();
    for r in regions {
        let mut keys = BTreeMap::new();
        engine.scan_raw_messages(r, None, None, false, |k, v| {
            keys.insert(k.to_vec(), v.to_vec());
            true
        })?;
        match (engine.first_index(r), engine.last_index(r)) {
            (Some(first), Some(last)) => {
                writeln!(out, "region {r} first {first} last {last}")?;
                for i in first..=last {
                    let e = engine
                        .get_entry::<Opaque>(r, i)?
                        .ok_or_else(|| format!("region {r}: entry {i} is not there"))?;
                    let b = e.bytes();
                    writeln!(
                        out,
                        "entry {i} term {} len {} crc {:08X}",
                        e.term(),
                        b.len(),
                        crc32fast::hash(b)
                    )?;
                }
            }
            _ => writeln!(out, "region {r} empty")?,
        }
        for (k, v) in &keys {
            writeln!(out, "key {} {}", hex(k), hex(v))?;
        }
    }
    Ok(())
}

fn hex(b: &[u8]) -> String {
    if b.is_empty() {
        return "-".to_owned();
    }
    b.iter().map(|x| format!("{x:02X}")).collect()
}

fn unhex(s: &str) -> Result<Vec<u8>, Fail> {
    if s == "-" {
        return Ok(vec![]);
    }
    if s.len() % 2 != 0 || !s.is_ascii() {
        return Err(format!("no hex: {s:.40}").into());
    }
    (0..s.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&s[i..i + 2], 16).map_err(Into::into))
        .collect()
}
