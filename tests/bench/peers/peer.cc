// peer MODE DIR T : what an operator would run instead, on stock RocksDB, and a neutral look at a store.
//
//   ctl  one thread, whole write column family, 256 records a batch, then all locks (tikv-ctl reset-to-version)
//   br   the same with tables skipped by tikv.max_ts, 1 Mi records a batch (BR's snapshot restore)
//   sum  reads nothing but: a hash over every visible record of the default, lock and write column families, and the number of
//        write tables that say that they hold something above T
//
// ctl and br end with a full compaction of the write column family, so that nothing above T is left in any file, all synced.
#include "tikvlike.h"

#include <chrono>
using namespace tl;

static uint64_t Hash(uint64_t h, const Slice& s) {
  h ^= s.size();
  h *= 0x100000001b3ull;
  size_t i = 0;
  for (; i + 8 <= s.size(); i += 8) {
    uint64_t w;
    memcpy(&w, s.data() + i, 8);
    h = (h ^ w) * 0x9E3779B97F4A7C15ull;
    h ^= h >> 29;
  }
  for (; i < s.size(); i++) h = (h ^ uint8_t(s[i])) * 0x100000001b3ull;
  return h;
}

static void Sum(DB* db, std::vector<ColumnFamilyHandle*>& h, uint64_t T) {
  ReadOptions ro;
  ro.fill_cache = false;
  ro.total_order_seek = true;
  uint64_t hash = 1, n = 0, above = 0;
  for (int f : {0, 1, 2}) {
    std::unique_ptr<Iterator> it(db->NewIterator(ro, h[f]));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      hash = Hash(Hash(hash, it->key()), it->value());
      n++;
    }
    Must(it->status());
    hash = Hash(hash, Slice("|"));
  }
  TablePropertiesCollection props;
  Must(db->GetPropertiesOfAllTables(h[2], &props));
  for (auto& p : props) {
    auto i = p.second->user_collected_properties.find("tikv.max_ts");
    if (p.second->num_entries && (i == p.second->user_collected_properties.end() || GetBE64(i->second.data()) > T)) above++;
  }
  printf("hash %016llx records %llu tables %zu above %llu\n", (unsigned long long)hash, (unsigned long long)n, props.size(), (unsigned long long)above);
  fflush(stdout);
}

int main(int c, char** v) {
  if (c < 4) {
    fprintf(stderr, "usage: peer ctl|br|sum DIR T [name=value ...]\n");
    return 2;
  }
  std::string mode = v[1], dir = v[2];
  uint64_t T = strtoull(v[3], nullptr, 10);
  bool br = mode == "br";
  Args a(c, v, 4);
  std::vector<ColumnFamilyHandle*> h;
  auto open = std::chrono::steady_clock::now();
  DB* db = Open(dir + "/db", &h, false, a.shape());
  auto since = [](std::chrono::steady_clock::time_point t) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count(); };
  if (mode == "sum") {
    Sum(db, h, T);
    _Exit(0);
  }
  double opening = since(open);
  auto t0 = std::chrono::steady_clock::now();
  ReadOptions ro;
  ro.fill_cache = false;
  ro.total_order_seek = true;
  if (br)
    ro.table_filter = [T](const TableProperties& p) {
      auto i = p.user_collected_properties.find("tikv.max_ts");
      return i == p.user_collected_properties.end() || GetBE64(i->second.data()) > T;
    };
  std::unique_ptr<Iterator> it(db->NewIterator(ro, h[2]));
  WriteBatch b;
  WriteOptions wo;
  wo.sync = br;
  uint64_t scanned = 0, del = 0, inb = 0, lim = br ? 1 << 20 : 256;
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    Slice k = it->key();
    scanned++;
    inb++;
    if (~GetBE64(k.data() + k.size() - 8) > T) {
      Slice w = it->value();
      const char* p = w.data() + 1;
      std::string d(k.data(), k.size() - 8);
      PutBE64(&d, ~GetVarint(p));
      Must(b.Delete(h[2], k));
      // The default row exists only for a Put without a short value.
      if (w[0] == 'P' && (size_t(p - w.data()) >= w.size() || *p != 'v')) Must(b.Delete(h[0], d));
      del++;
    }
    if (inb >= lim) {
      if (b.Count()) {
        Must(db->Write(wo, &b));
        b.Clear();
      }
      inb = 0;
    }
  }
  Must(it->status());
  if (b.Count()) Must(db->Write(wo, &b));
  b.Clear();
  ReadOptions rl;
  rl.fill_cache = false;
  uint64_t locks = 0;
  std::unique_ptr<Iterator> il(db->NewIterator(rl, h[1]));
  for (il->SeekToFirst(); il->Valid(); il->Next()) {
    Slice k = il->key();
    const char* p = il->value().data() + 1;
    uint64_t primary = GetVarint(p) >> 1;
    p += primary;
    std::string d(k.data(), k.size());
    PutBE64(&d, ~GetVarint(p));
    Must(b.Delete(h[1], k));
    Must(b.Delete(h[0], d));
    locks++;
    if (b.Count() >= 256) {
      Must(db->Write(wo, &b));
      b.Clear();
    }
  }
  wo.sync = true;
  b.PutLogData("end");
  Must(db->Write(wo, &b));
  double deleting = since(t0);
  it.reset();
  il.reset();
  if (del) {
    CompactRangeOptions co;
    co.bottommost_level_compaction = BottommostLevelCompaction::kForce;
    co.max_subcompactions = 2;
    Must(db->CompactRange(co, h[2], nullptr, nullptr));
  }
  printf("scanned %llu deleted %llu locks %llu opening %.3f deleting %.3f seconds %.3f\n", (unsigned long long)scanned, (unsigned long long)del,
         (unsigned long long)locks, opening, deleting, since(t0));
  fflush(stdout);
  _Exit(0);
}
