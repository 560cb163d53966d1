// Package wal reads the write-ahead logs of a RocksDB directory: the physical framing, which MANIFESTs share, the write
// batches, and the replay that DB::Open does.
package wal
