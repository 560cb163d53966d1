// gendb DIR [keys=N] [versions=N] [value=BYTES] [recent=N] [model=N] [locks=N] [file=BYTES] [mem=BYTES] [bottom=lz4|zstd]
//
// Writes a TiKV-shaped data directory with real RocksDB: db/ and raft/, one region over everything. The rows are written version by
// version in shuffled order and compacted as RocksDB sees fit; the last part stays in the write-ahead log, and the process exits
// without closing, as a killed TiKV does. recent=N writes N more versions of a hot tenth of the rows once everything else has been
// compacted, so that they lie in the top levels only. model=N: the hot rows, and the rows with locks, are those of a store of N rows.
// Prints the highest commit_ts after each round of versions.
#include "tikvlike.h"

#include <sys/stat.h>

#include <chrono>
#include <random>
#include <thread>
using namespace tl;

// Protobuf by hand: field number, varint.
static void PB(std::string* s, int field, uint64_t v) {
  s->push_back(char(field << 3));
  PutVarint(s, v);
}
static void PB(std::string* s, int field, const std::string& v) {
  s->push_back(char(field << 3 | 2));
  PutVarint(s, v.size());
  *s += v;
}
static std::string Local(int kind, uint64_t region, int suffix) {
  std::string k = {1, char(kind)};
  PutBE64(&k, region);
  k.push_back(char(suffix));
  return k;
}

// Identity:  StoreIdent, RegionLocalState, RaftApplyState, RaftLocalState of store 1 with region 2 over the whole key space.
static void Identity(const std::string& dir, DB* db, std::vector<ColumnFamilyHandle*>& h) {
  WriteOptions wo;
  std::string ident, epoch, peer, region, state, truncated, apply, hard, raft;
  PB(&ident, 1, 7000000000000000001ull);
  PB(&ident, 2, 1);
  Must(db->Put(wo, h[0], std::string{1, 1}, ident));
  PB(&epoch, 1, 1);
  PB(&epoch, 2, 1);
  PB(&peer, 1, 3);
  PB(&peer, 2, 1);
  PB(&region, 1, 2);
  PB(&region, 4, epoch);
  PB(&region, 5, peer);
  PB(&state, 2, region);
  Must(db->Put(wo, h[3], Local(3, 2, 1), state));
  PB(&truncated, 1, 5);
  PB(&truncated, 2, 5);
  PB(&apply, 1, 5);
  PB(&apply, 3, 5);
  PB(&apply, 4, 5);
  PB(&apply, 2, truncated);
  Must(db->Put(wo, h[3], Local(2, 2, 3), apply));
  Options o;
  o.create_if_missing = true;
  DB* rdb = nullptr;
  Must(DB::Open(o, dir + "/raft", &rdb));
  PB(&hard, 1, 5);
  PB(&hard, 2, 3);
  PB(&hard, 3, 5);
  PB(&raft, 1, hard);
  PB(&raft, 2, 5);
  WriteOptions sync;
  sync.sync = true;
  Must(rdb->Put(sync, Local(2, 2, 2), raft));
  delete rdb;
  // Families without new records would keep every log alive.
  for (auto x : h) Must(db->Flush(FlushOptions(), x));
}

static void Settle(DB* db, std::vector<ColumnFamilyHandle*>& h) {
  for (int i = 0; i < 1200; i++) {
    uint64_t p = 0, q = 0, run = 0, fl = 0;
    db->GetIntProperty(h[2], "rocksdb.compaction-pending", &p);
    db->GetIntProperty(h[0], "rocksdb.compaction-pending", &q);
    db->GetIntProperty("rocksdb.num-running-compactions", &run);
    db->GetIntProperty("rocksdb.num-running-flushes", &fl);
    if (!p && !q && !run && !fl) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

int main(int c, char** v) {
  if (c < 2) {
    fprintf(stderr, "usage: gendb DIR [name=value ...]\n");
    return 2;
  }
  std::string dir = v[1];
  Args a(c, v, 2);
  const uint64_t keys = a.num("keys", 1000000), versions = a.num("versions", 6), vb = a.num("value", 100), recent = a.num("recent", 0),
                 model = a.num("model", keys),
                 locks = a.num("locks", 0);
  mkdir(dir.c_str(), 0755);
  if (FILE* f = fopen((dir + "/LOCK").c_str(), "w")) fclose(f);
  std::vector<ColumnFamilyHandle*> h;
  DB* db = Open(dir + "/db", &h, true, a.shape());
  Identity(dir, db, h);
  std::mt19937_64 rng(42);
  WriteOptions wo;
  std::string pool(1 << 20, 0);
  for (size_t i = 0; i < pool.size(); i++) pool[i] = (i / 64) % 2 ? char(rng()) : char('a' + i % 7);
  uint64_t ts = 430315739761082369ull;
  auto round = [&](uint64_t r, uint64_t n, uint64_t among) {
    WriteBatch b;
    for (uint64_t i = 0; i < n; i++) {
      uint64_t hdl = (i * 2654435761ull + r * 40503) % among;
      uint64_t start = ts;
      ts += 1 + (rng() & 3);
      uint64_t commit = ts++;
      std::string uk = RowKey(100 + hdl % 8, hdl);
      std::string val(pool.data() + (rng() % (pool.size() - vb)), vb), w;
      w.push_back((i * 0x9E3779B97F4A7C15ull >> 60) == 0 ? 'D' : 'P');
      PutVarint(&w, start);
      if (w[0] == 'P') {
        if (vb <= 255) {
          w.push_back('v');
          w.push_back(char(vb));
          w += val;
        } else {
          Must(b.Put(h[0], DataKey(uk, start), val));
        }
      }
      Must(b.Put(h[2], DataKey(uk, commit), w));
      if (b.Count() >= 128 || i + 1 == n) {
        Must(db->Write(wo, &b));
        b.Clear();
      }
    }
    printf("round %llu max_commit_ts %llu\n", (unsigned long long)r, (unsigned long long)ts - 1);
    fflush(stdout);
  };
  for (uint64_t r = 0; r < versions; r++) round(r, keys, keys);
  if (recent) {
    for (int f : {0, 2}) Must(db->Flush(FlushOptions(), h[f]));
    CompactRangeOptions co;
    co.bottommost_level_compaction = BottommostLevelCompaction::kForce;
    co.max_subcompactions = 2;
    for (int f : {0, 2}) Must(db->CompactRange(co, h[f], nullptr, nullptr));
    for (int part = 0; part < 3; part++) {
      round(versions + part, recent / 3, std::max<uint64_t>(1, model / 10));
      if (part < 2)
        for (int f : {0, 2}) Must(db->Flush(FlushOptions(), h[f]));
    }
  }
  for (uint64_t i = 0; i < locks; i++) {
    uint64_t hdl = (i * 7919) % model;
    std::string uk = RowKey(100 + hdl % 8, hdl), l = "P";
    PutVarint(&l, uk.size() << 1);  // a signed varint
    l += uk;
    PutVarint(&l, ts + i);
    PutVarint(&l, 3000);
    if (vb <= 255) {
      l.push_back('v');
      l.push_back(char(vb));
      l.append(vb, 'L');
    }
    Must(db->Put(wo, h[1], "z" + EncodeBytes(uk), l));
    if (vb > 255) Must(db->Put(wo, h[0], DataKey(uk, ts + i), std::string(vb, 'L')));
  }
  Settle(db, h);
  WriteOptions sync;
  sync.sync = true;
  WriteBatch end;
  end.PutLogData("end");
  Must(db->Write(sync, &end));
  _Exit(0);
}
