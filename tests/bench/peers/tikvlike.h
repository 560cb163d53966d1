// Options, key layout, records and table properties as TiKV lays them out, on stock RocksDB.
#pragma once
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/table_properties.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tl {
using namespace rocksdb;

inline void PutBE64(std::string* s, uint64_t v) {
  for (int i = 7; i >= 0; i--) s->push_back(char(v >> (8 * i)));
}
inline uint64_t GetBE64(const char* p) {
  uint64_t v = 0;
  for (int i = 0; i < 8; i++) v = v << 8 | uint8_t(p[i]);
  return v;
}
inline void PutVarint(std::string* s, uint64_t v) {
  while (v >= 0x80) { s->push_back(char(v | 0x80)); v >>= 7; }
  s->push_back(char(v));
}
inline uint64_t GetVarint(const char*& p) {
  uint64_t v = 0;
  for (int sh = 0;; sh += 7) {
    uint8_t b = *p++;
    v |= uint64_t(b & 0x7f) << sh;
    if (b < 0x80) return v;
  }
}
// Memcomparable bytes: groups of 8, each followed by 0xff minus its padding.
inline std::string EncodeBytes(const std::string& k) {
  std::string o;
  for (size_t i = 0;;) {
    size_t n = std::min<size_t>(8, k.size() - i);
    o.append(k, i, n);
    o.append(8 - n, '\0');
    o.push_back(char(0xff - (8 - n)));
    i += n;
    if (n < 8) return o;
  }
}
inline std::string RowKey(uint64_t table, uint64_t handle) {
  std::string k = "t";
  PutBE64(&k, table ^ (1ull << 63));
  k += "_r";
  PutBE64(&k, handle ^ (1ull << 63));
  return k;
}
inline std::string DataKey(const std::string& user, uint64_t ts) {
  std::string k = "z" + EncodeBytes(user);
  PutBE64(&k, ~ts);
  return k;
}

inline void Point(std::string* index, const std::string& key, uint64_t a, uint64_t b) {
  PutBE64(index, key.size());
  *index += key;
  PutBE64(index, a);
  PutBE64(index, b);
}

// components/engine_rocks/src/properties.rs: MvccPropertiesCollector, RangePropertiesCollector.
class MvccCollector : public TablePropertiesCollector {
  uint64_t min_ = UINT64_MAX, max_ = 0, rows_ = 0, puts_ = 0, dels_ = 0, vers_ = 0, maxrow_ = 0, rowv_ = 0, errs_ = 0, size_ = 0, off_ = 0;
  std::string last_, index_;

 public:
  Status AddUserKey(const Slice& key, const Slice& value, EntryType t, SequenceNumber, uint64_t) override {
    if (t != kEntryPut && t != kEntryDelete) return Status::OK();
    if (key.size() < 9 || key[0] != 'z') { errs_++; return Status::OK(); }
    uint64_t ts = ~GetBE64(key.data() + key.size() - 8);
    min_ = std::min(min_, ts);
    max_ = std::max(max_, ts);
    if (t == kEntryDelete) return Status::OK();
    vers_++;
    Slice row(key.data(), key.size() - 8);
    if (row != Slice(last_)) { rows_++; rowv_ = 1; last_.assign(row.data(), row.size()); } else { rowv_++; }
    maxrow_ = std::max(maxrow_, rowv_);
    if (value.size() && value[0] == 'P') puts_++;
    else if (value.size() && value[0] == 'D') dels_++;
    if (rowv_ == 1) {
      size_++;
      off_++;
      if (off_ == 1 || size_ >= 10000) { Point(&index_, last_, size_, off_); size_ = 0; }
    }
    return Status::OK();
  }
  Status Finish(UserCollectedProperties* p) override {
    auto put = [&](const char* n, uint64_t v) { std::string s; PutBE64(&s, v); (*p)[n] = s; };
    if (size_ > 0) Point(&index_, last_, size_, off_);
    put("tikv.min_ts", min_);
    put("tikv.max_ts", max_);
    put("tikv.num_rows", rows_);
    put("tikv.num_puts", puts_);
    put("tikv.num_deletes", dels_);
    put("tikv.num_versions", vers_);
    put("tikv.max_row_versions", maxrow_);
    put("tikv.num_errors", errs_);
    (*p)["tikv.rows_index"] = index_;
    return Status::OK();
  }
  UserCollectedProperties GetReadableProperties() const override { return {}; }
  const char* Name() const override { return "tikv.mvcc-properties-collector"; }
};
class RangeCollector : public TablePropertiesCollector {
  uint64_t size_ = 0, keys_ = 0, lsize_ = 0, lkeys_ = 0;
  std::string last_, index_;
  void point() { Point(&index_, last_, size_, keys_); lsize_ = size_; lkeys_ = keys_; }

 public:
  Status AddUserKey(const Slice& key, const Slice& value, EntryType t, SequenceNumber, uint64_t) override {
    if (t != kEntryPut) return Status::OK();
    bool first = last_.empty();
    size_ += key.size() + value.size();
    keys_++;
    last_.assign(key.data(), key.size());
    if (first || size_ - lsize_ >= 4 << 20 || keys_ - lkeys_ >= 40960) point();
    return Status::OK();
  }
  Status Finish(UserCollectedProperties* p) override {
    if (size_ > lsize_ || keys_ > lkeys_) point();
    (*p)["tikv.range_index"] = index_;
    return Status::OK();
  }
  UserCollectedProperties GetReadableProperties() const override { return {}; }
  const char* Name() const override { return "tikv.range-properties-collector"; }
};
template <class C>
class Factory : public TablePropertiesCollectorFactory {
 public:
  TablePropertiesCollector* CreateTablePropertiesCollector(Context) override { return new C; }
  const char* Name() const override { return C().Name(); }
};
// The write column family's filters hold keys without their timestamp. Source: components/engine_rocks/src/util.rs.
class FixedSuffix : public SliceTransform {
 public:
  const char* Name() const override { return "FixedSuffixSliceTransform"; }
  Slice Transform(const Slice& k) const override { return Slice(k.data(), k.size() - 8); }
  bool InDomain(const Slice& k) const override { return k.size() >= 8; }
};

struct Shape {
  uint64_t file = 8 << 20;   // target_file_size_base
  uint64_t mem = 64 << 20;   // write_buffer_size
  std::string bottom;        // compression of everything below L0; empty: as TiKV configures it
};

inline ColumnFamilyOptions CfOptions(const std::string& cf, bool compact, const Shape& sh) {
  ColumnFamilyOptions o;
  BlockBasedTableOptions t;
  t.block_size = cf == "lock" || cf == "raft" ? 16 << 10 : 32 << 10;
  t.filter_policy.reset(NewBloomFilterPolicy(10, false));
  t.whole_key_filtering = cf != "write";
  t.format_version = 2;
  t.checksum = kCRC32c;
  t.cache_index_and_filter_blocks = true;
  t.block_cache = NewLRUCache(512 << 20);
  o.table_factory.reset(NewBlockBasedTableFactory(t));
  // With dynamic levels the second one is for the first level below L0 that is in use, whatever its number: a store of one level
  // is not compressed.
  auto bottom = sh.bottom == "lz4" ? kLZ4Compression : kZSTD;
  if (cf == "lock" || cf == "raft") o.compression = kNoCompression;
  else if (!sh.bottom.empty()) o.compression_per_level = {kNoCompression, bottom};
  else o.compression_per_level = {kNoCompression, kNoCompression, kLZ4Compression, kLZ4Compression, kLZ4Compression, kZSTD, kZSTD};
  o.num_levels = 7;
  o.write_buffer_size = sh.mem;
  o.target_file_size_base = sh.file;
  o.max_bytes_for_level_base = cf == "default" || cf == "write" ? 8 * sh.mem : 2 * sh.mem;
  o.level_compaction_dynamic_level_bytes = true;
  o.disable_auto_compactions = !compact;
  o.level0_slowdown_writes_trigger = 1000;
  o.level0_stop_writes_trigger = 1000;
  if (cf == "write") {
    o.prefix_extractor = std::make_shared<FixedSuffix>();
    o.table_properties_collector_factories.emplace_back(new Factory<MvccCollector>);
  }
  if (cf != "raft") o.table_properties_collector_factories.emplace_back(new Factory<RangeCollector>);
  return o;
}

// Open gives the handles in the order default, lock, write, raft.
inline DB* Open(const std::string& dir, std::vector<ColumnFamilyHandle*>* h, bool compact, const Shape& sh) {
  DBOptions d;
  d.create_if_missing = d.create_missing_column_families = true;
  d.max_background_jobs = 2;
  d.max_subcompactions = 2;
  d.wal_recovery_mode = WALRecoveryMode::kPointInTimeRecovery;
  d.max_open_files = 40960;
  std::vector<ColumnFamilyDescriptor> cfs;
  for (auto s : {"default", "lock", "write", "raft"}) cfs.emplace_back(s, CfOptions(s, compact, sh));
  DB* db = nullptr;
  auto s = DB::Open(d, dir, cfs, h, &db);
  if (!s.ok()) {
    fprintf(stderr, "open %s: %s\n", dir.c_str(), s.ToString().c_str());
    exit(1);
  }
  return db;
}

inline void Must(const Status& s) {
  if (!s.ok()) {
    fprintf(stderr, "%s\n", s.ToString().c_str());
    exit(1);
  }
}

// Arguments of the form name=value.
struct Args {
  std::map<std::string, std::string> m;
  Args(int c, char** v, int from) {
    for (int i = from; i < c; i++) {
      std::string a = v[i];
      auto p = a.find('=');
      m[a.substr(0, p)] = p == std::string::npos ? "1" : a.substr(p + 1);
    }
  }
  uint64_t num(const char* n, uint64_t d) const {
    auto i = m.find(n);
    return i == m.end() ? d : strtoull(i->second.c_str(), nullptr, 10);
  }
  Shape shape() const {
    Shape s;
    s.file = num("file", s.file);
    s.mem = num("mem", s.mem);
    if (auto i = m.find("bottom"); i != m.end()) s.bottom = i->second;
    return s;
  }
};
}  // namespace tl
