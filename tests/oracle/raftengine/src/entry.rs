//! eraftpb.Entry as the engine needs it: a message whose bytes come out exactly as they went in.

use std::any::Any;

use protobuf::reflect::MessageDescriptor;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields,
};
use raft_engine::MessageExt;

/// The bytes of one eraftpb.Entry: 2 term, 3 index.
#[derive(Clone, Debug, Default)]
pub struct RawEntry {
    bytes: Vec<u8>,
    unknown: UnknownFields, // always empty; the trait hands out references to it
}

impl RawEntry {
    pub fn new(bytes: Vec<u8>) -> Self {
        RawEntry {
            bytes,
            unknown: UnknownFields::new(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn term(&self) -> u64 {
        self.number(2)
    }

    /// The value of a varint field, 0 when it is absent; of several the last, as a protobuf parser takes it.
    fn number(&self, field: u32) -> u64 {
        let mut is = CodedInputStream::from_bytes(&self.bytes);
        let mut value = 0;
        while !is.eof().expect("entry") {
            let (n, wire) = is.read_tag_unpack().expect("entry");
            if n == field {
                value = is.read_uint64().expect("entry");
            } else {
                is.skip_field(wire).expect("entry");
            }
        }
        value
    }
}

impl PartialEq for RawEntry {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Clear for RawEntry {
    fn clear(&mut self) {
        self.bytes.clear()
    }
}

impl Message for RawEntry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        Self::descriptor_static()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, is: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !is.eof()? {
            self.bytes.push(is.read_raw_byte()?);
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        os.write_raw_bytes(&self.bytes)
    }

    fn compute_size(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static INSTANCE: std::sync::OnceLock<RawEntry> = std::sync::OnceLock::new();
        INSTANCE.get_or_init(RawEntry::default)
    }
}

/// Tells the engine the index of an entry. Reading one asserts that it is the index under which it is stored.
#[derive(Clone)]
pub struct Opaque;

impl MessageExt for Opaque {
    type Entry = RawEntry;

    fn index(e: &RawEntry) -> u64 {
        e.number(3)
    }
}
