// Package manifest reads and writes the MANIFEST of a RocksDB directory with any number of column families: the version
// edits, the state that they add up to, and the records that change it.
package manifest
