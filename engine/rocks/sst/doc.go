// Package sst reads and writes RocksDB block-based tables, as TiKV's three RocksDB lines (6.4, 6.29, 8.10) leave them.
//
// A table is a run of blocks and a footer that finds them. There is no header: reading starts at the end.
//
//	+--------------------------------------+
//	| data block 0 | trailer               |  point records, sorted by internal key
//	| ...                                  |
//	| data block n | trailer               |
//	+--------------------------------------+
//	| filter block | trailer               |  optional; Bloom or Ribbon, never compressed
//	| index block | trailer                |  one entry per data block: separator >= its last key, handle
//	| range tombstone block | trailer      |  optional
//	| properties block | trailer           |
//	| metaindex block | trailer            |  name -> handle of every block but the data blocks
//	+--------------------------------------+
//	| footer, 48 or 53 bytes               |  handles of metaindex and index, checksum type, version, magic
//	+--------------------------------------+
//
//	trailer : compression type u8 | checksum u32 LE over stored payload and type byte
//	handle  : offset varint64 | size varint64        size without the trailer
//
// The order of the meta blocks is not fixed; only the handles count.
// Source: tikv/rocksdb 8.10.tikv table/format.{h,cc}, table/block_based/block_based_table_builder.cc.
//
// The reader takes every footer version (0 to 6), every checksum and every index type that the three lines can write, and
// refuses by name what it does not decode. The writer has footer versions 2 to 5 and the checksums and full filters that go with them, always with
// a binary index of whole keys and without identity properties: the line that is configured to write a version, checksum or filter reads it.
package sst
