import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.rocksdb.BlockBasedTableConfig;
import org.rocksdb.BloomFilter;
import org.rocksdb.ColumnFamilyDescriptor;
import org.rocksdb.ColumnFamilyHandle;
import org.rocksdb.ColumnFamilyOptions;
import org.rocksdb.DBOptions;
import org.rocksdb.Options;
import org.rocksdb.ReadOptions;
import org.rocksdb.RocksDB;
import org.rocksdb.RocksDBException;
import org.rocksdb.RocksIterator;
import org.rocksdb.Slice;
import org.rocksdb.Statistics;
import org.rocksdb.StatsLevel;
import org.rocksdb.TickerType;
import org.rocksdb.WALRecoveryMode;

/**
 * Real RocksDB as a judge of a database directory. Uses only what rocksdbjni 6.4.6, 6.29.5 and 8.10.2 have in common, so that
 * the same source compiles with each. {@code java -cp rocksdbjni-V.jar Oracle.java DIR key=value...} works by hand.
 *
 * <p>DIR is a copy: in mode=rw RocksDB writes to it. Every column family that the MANIFEST lists is opened with default
 * options, so TiKV's OPTIONS files (which stock RocksDB cannot parse) are not read. Keys of the command line:
 * <ul>
 * <li>{@code mode=ro|rw} read-only (default), or a full open: replay of the WAL, flush, a new MANIFEST;
 * <li>{@code opens=N} open, read and close N times (default 1); each time must read the same;
 * <li>{@code compact=CF} (repeatable, mode=rw) CompactRange of the whole family, bottommost level included, before reading;
 * <li>{@code out=FILE} rows as {@code cf TAB key TAB value}, upper-case hex, in the order of the MANIFEST's families and of keys;
 * <li>{@code blobs=FILE} lines {@code cf TAB key}: the keys whose newest record is a Titan blob index. Stock RocksDB refuses
 * to read them: they are stepped over, and it is an error if a Get of one of them succeeds.
 * <li>{@code prefix=CF:fixed:N} or {@code CF:capped:N} (repeatable) gives the family a prefix extractor;
 * <li>{@code ask=FILE} lines {@code group TAB cf TAB get|seek TAB key}: after everything else, each group with counters of its own, a Get
 * of the key, or a Seek to it within its prefix (at a prefix itself: is there any such row?).
 * </ul>
 * Standard output: {@code cf NAME COUNT SHA256} for each family, {@code ticker NAME VALUE}, and for each group of questions
 * {@code asked GROUP FOUND MISSING} and {@code ticker GROUP NAME VALUE}. The hash is over the rows without the family's name. Exit status 1 and one line on standard error when anything is wrong.
 */
public final class Oracle {
  private static final TickerType[] TICKERS = {
    TickerType.BLOOM_FILTER_USEFUL, TickerType.BLOOM_FILTER_FULL_POSITIVE, TickerType.BLOOM_FILTER_FULL_TRUE_POSITIVE,
    TickerType.BLOOM_FILTER_PREFIX_CHECKED, TickerType.BLOOM_FILTER_PREFIX_USEFUL, TickerType.BLOCK_CACHE_MISS,
    TickerType.COMPACT_READ_BYTES, TickerType.COMPACT_WRITE_BYTES,
  };

  /** Counters of Seeks in RocksDB 8, which Java has no constants for; they stand in the text of the statistics. */
  private static final String[] SEEK_TICKERS = {
    "last.level.seek.filtered", "last.level.seek.filter.match", "non.last.level.seek.filtered", "non.last.level.seek.filter.match",
  };

  private final Path dir;
  private boolean readWrite;
  private int opens = 1;
  private final List<String> compact = new ArrayList<>();
  private final Map<String, TreeSet<byte[]>> blobs = new HashMap<>();
  private final Map<String, String[]> prefixes = new HashMap<>();
  private final Map<String, List<String[]>> asks = new LinkedHashMap<>();
  private Path out;

  private Oracle(String[] args) throws IOException {
    dir = Paths.get(args[0]);
    for (String arg : Arrays.asList(args).subList(1, args.length)) {
      String[] kv = arg.split("=", 2);
      switch (kv[0]) {
        case "mode" -> readWrite = kv[1].equals("rw");
        case "opens" -> opens = Integer.parseInt(kv[1]);
        case "compact" -> compact.add(kv[1]);
        case "out" -> out = Paths.get(kv[1]);
        case "blobs" -> readBlobs(Paths.get(kv[1]));
        case "prefix" -> {
          String[] w = kv[1].split(":");
          prefixes.put(w[0], w);
        }
        case "ask" -> {
          for (String line : Files.readAllLines(Paths.get(kv[1]))) {
            String[] w = line.split("\t");
            asks.computeIfAbsent(w[0], k -> new ArrayList<>()).add(w);
          }
        }
        default -> throw new IllegalArgumentException("unknown argument " + arg);
      }
    }
  }

  private void readBlobs(Path file) throws IOException {
    for (String line : Files.readAllLines(file)) {
      String[] w = line.split("\t");
      blobs.computeIfAbsent(w[0], k -> new TreeSet<byte[]>(BYTEWISE)).add(unhex(w[1]));
    }
  }

  public static void main(String[] args) {
    try {
      RocksDB.loadLibrary();
      new Oracle(args).run();
    } catch (Exception e) {
      System.err.println(e.getClass().getSimpleName() + ": " + e.getMessage());
      System.exit(1);
    }
  }

  private void run() throws Exception {
    List<String> first = null;
    for (int i = 0; i < opens; i++) {
      List<String> summary = openAndRead(i == 0);
      if (first == null) {
        first = summary;
        summary.forEach(System.out::println);
      } else if (!summary.equals(first)) {
        throw new Exception("open " + (i + 1) + " reads other rows than the first: " + summary);
      }
    }
  }

  private List<String> openAndRead(boolean isFirst) throws Exception {
    List<byte[]> names;
    try (Options options = new Options()) {
      names = RocksDB.listColumnFamilies(options, dir.toString());
    }
    List<String> summary = new ArrayList<>();
    List<ColumnFamilyHandle> handles = new ArrayList<>();
    try (Statistics statistics = new Statistics();
        BloomFilter bloom = new BloomFilter(10, false);
        DBOptions dbOptions = newDBOptions();
        ColumnFamilyOptions plain = familyOptions(bloom)) {
      statistics.setStatsLevel(StatsLevel.ALL);
      dbOptions.setParanoidChecks(true).setWalRecoveryMode(WALRecoveryMode.PointInTimeRecovery).setStatistics(statistics);
      List<ColumnFamilyDescriptor> descriptors = new ArrayList<>();
      for (byte[] name : names) {
        String[] prefix = prefixes.get(new String(name, StandardCharsets.UTF_8));
        ColumnFamilyOptions cfOptions = prefix == null ? plain : familyOptions(bloom);
        if (prefix != null && prefix[1].equals("fixed")) {
          cfOptions.useFixedLengthPrefixExtractor(Integer.parseInt(prefix[2]));
        } else if (prefix != null) {
          cfOptions.useCappedPrefixExtractor(Integer.parseInt(prefix[2]));
        }
        descriptors.add(new ColumnFamilyDescriptor(name, cfOptions));
      }
      try (RocksDB db = readWrite
              ? RocksDB.open(dbOptions, dir.toString(), descriptors, handles)
              : RocksDB.openReadOnly(dbOptions, dir.toString(), descriptors, handles);
          BufferedWriter rows = isFirst && out != null ? Files.newBufferedWriter(out) : null) {
        for (int i = 0; i < names.size(); i++) {
          String name = new String(names.get(i), StandardCharsets.UTF_8);
          if (isFirst && compact.contains(name)) {
            db.compactRange(handles.get(i));
          }
          summary.add(read(db, handles.get(i), name, rows));
        }
        if (isFirst) {
          for (TickerType ticker : TICKERS) {
            System.out.println("ticker " + ticker + " " + statistics.getTickerCount(ticker));
          }
          for (String group : asks.keySet()) {
            ask(db, handles, names, group, statistics);
          }
        }
        for (ColumnFamilyHandle handle : handles) {
          handle.close();
        }
      }
    }
    return summary;
  }

  /** A filter policy makes Get consult the filter blocks of the files: a wrong filter then loses keys. */
  private static ColumnFamilyOptions familyOptions(BloomFilter bloom) {
    return new ColumnFamilyOptions().setDisableAutoCompactions(true)
        .setTableFormatConfig(new BlockBasedTableConfig().setFilterPolicy(bloom).setWholeKeyFiltering(true));
  }

  /** Asks the questions of one group and prints how many were answered and what the counters say. */
  private void ask(RocksDB db, List<ColumnFamilyHandle> handles, List<byte[]> names, String group, Statistics statistics)
      throws Exception {
    Map<String, ColumnFamilyHandle> byName = new HashMap<>();
    for (int i = 0; i < names.size(); i++) {
      byName.put(new String(names.get(i), StandardCharsets.UTF_8), handles.get(i));
    }
    statistics.reset();
    long found = 0;
    long missing = 0;
    try (ReadOptions get = new ReadOptions(); ReadOptions seek = new ReadOptions().setPrefixSameAsStart(true)) {
      for (String[] w : asks.get(group)) {
        ColumnFamilyHandle cf = byName.get(w[1]);
        byte[] key = unhex(w[3]);
        boolean there;
        if (w[2].equals("get")) {
          there = db.get(cf, get, key) != null;
        } else {
          try (RocksIterator it = db.newIterator(cf, seek)) {
            it.seek(key);
            there = it.isValid() && Arrays.equals(Arrays.copyOf(it.key(), key.length), key);
            it.status();
          }
        }
        if (there) {
          found++;
        } else {
          missing++;
        }
      }
    }
    System.out.println("asked " + group + " " + found + " " + missing);
    for (TickerType ticker : TICKERS) {
      System.out.println("ticker " + group + " " + ticker + " " + statistics.getTickerCount(ticker));
    }
    for (String line : statistics.toString().split("\n")) {
      // rocksdb.last.level.seek.filtered COUNT : 12
      for (String name : SEEK_TICKERS) {
        if (line.startsWith("rocksdb." + name + " COUNT : ")) {
          System.out.println("ticker " + group + " " + name.toUpperCase().replace('.', '_') + line.substring(line.lastIndexOf(' ')));
        }
      }
    }
  }

  /**
   * TiKV keeps the list of its WALs in the MANIFEST. A RocksDB that knows the option has to be told to check it: 8.10 otherwise
   * wants to strike the list from the MANIFEST and dereferences a null pointer when the open is read-only. 6.4 does not know it
   * and skips the records.
   */
  private static DBOptions newDBOptions() {
    Properties properties = new Properties();
    properties.setProperty("track_and_verify_wals_in_manifest", "true");
    DBOptions options = DBOptions.getDBOptionsFromProps(properties);
    return options != null ? options : new DBOptions();
  }

  /** Reads one family by iterator, forwards and backwards, and each key by Get; returns its line of the summary. */
  private String read(RocksDB db, ColumnFamilyHandle cf, String name, BufferedWriter rows) throws Exception {
    Family family = new Family(db, cf, name, rows, blobs.getOrDefault(name, new TreeSet<byte[]>(BYTEWISE)));
    // An iterator fails for good at a blob index, so it is given one stretch between two of them at a time.
    byte[] from = new byte[0];
    for (byte[] blob : family.skip) {
      family.readStretch(from, blob);
      family.mustRefuse(blob);
      from = justAbove(blob);
    }
    family.readStretch(from, null);
    if (family.skip.isEmpty()) {
      family.countBackwards();
    }
    return "cf " + name + " " + family.count + " " + hex(family.hash.digest()).toLowerCase();
  }

  /** One column family while it is read. */
  private static final class Family {
    final RocksDB db;
    final ColumnFamilyHandle cf;
    final String name;
    final BufferedWriter rows;
    final TreeSet<byte[]> skip;
    final MessageDigest hash;
    long count;
    byte[] last;

    Family(RocksDB db, ColumnFamilyHandle cf, String name, BufferedWriter rows, TreeSet<byte[]> skip) throws Exception {
      this.db = db;
      this.cf = cf;
      this.name = name;
      this.rows = rows;
      this.skip = skip;
      this.hash = MessageDigest.getInstance("SHA-256");
    }

    static ReadOptions readOptions() {
      return new ReadOptions().setVerifyChecksums(true).setTotalOrderSeek(true);
    }

    /** Reads the keys in [from, to); to is null for no end. */
    void readStretch(byte[] from, byte[] to) throws Exception {
      try (Slice bound = new Slice(to == null ? new byte[0] : to);
          ReadOptions ro = readOptions();
          ReadOptions get = readOptions()) {
        if (to != null) {
          ro.setIterateUpperBound(bound);
        }
        try (RocksIterator it = db.newIterator(cf, ro)) {
          for (it.seek(from); it.isValid(); ) {
            byte[] key = it.key();
            row(get, key, it.value());
            // A key just above asks the filters for something that is not there (or is the next row, and checked then).
            byte[] above = justAbove(key);
            byte[] gotAbove = skip.contains(above) ? null : db.get(cf, get, above);
            it.next();
            if (gotAbove != null && !(it.isValid() && Arrays.equals(it.key(), above))) {
              throw new Exception(name + ": Get finds " + hex(above) + " and the iterator does not");
            }
          }
          try {
            it.status();
          } catch (RocksDBException e) {
            throw new Exception(name + ": iterator after " + hex(last) + ": " + e.getMessage());
          }
        }
      }
    }

    void row(ReadOptions ro, byte[] key, byte[] value) throws Exception {
      if (last != null && BYTEWISE.compare(last, key) >= 0) {
        throw new Exception(name + ": iterator gives " + hex(key) + " after " + hex(last));
      }
      byte[] got = db.get(cf, ro, key);
      if (!Arrays.equals(got, value)) {
        throw new Exception(name + ": Get of " + hex(key) + " gives " + hex(got) + ", iterator " + hex(value));
      }
      String row = hex(key) + "\t" + hex(value) + "\n";
      hash.update(row.getBytes(StandardCharsets.US_ASCII));
      if (rows != null) {
        rows.write(name + "\t" + row);
      }
      count++;
      last = key;
    }

    void countBackwards() throws Exception {
      long backwards = 0;
      try (ReadOptions ro = readOptions(); RocksIterator it = db.newIterator(cf, ro)) {
        for (it.seekToLast(); it.isValid(); it.prev()) {
          backwards++;
        }
        it.status();
      }
      if (backwards != count) {
        throw new Exception(name + ": " + count + " rows forwards, " + backwards + " backwards");
      }
    }

    void mustRefuse(byte[] blob) throws Exception {
      byte[] value;
      try (ReadOptions ro = readOptions()) {
        value = db.get(cf, ro, blob);
      } catch (RocksDBException e) {
        return;
      }
      throw new Exception(name + ": " + hex(blob) + " is said to be a blob and Get gives " + hex(value));
    }
  }

  private static byte[] justAbove(byte[] key) {
    return Arrays.copyOf(key, key.length + 1);
  }

  private static final Comparator<byte[]> BYTEWISE = Arrays::compareUnsigned;
  private static final char[] DIGITS = "0123456789ABCDEF".toCharArray();

  private static String hex(byte[] b) {
    if (b == null) {
      return "nothing";
    }
    char[] s = new char[b.length * 2];
    for (int i = 0; i < b.length; i++) {
      s[2 * i] = DIGITS[(b[i] >> 4) & 15];
      s[2 * i + 1] = DIGITS[b[i] & 15];
    }
    return new String(s);
  }

  private static byte[] unhex(String s) {
    byte[] b = new byte[s.length() / 2];
    for (int i = 0; i < b.length; i++) {
      b[i] = (byte) Integer.parseInt(s.substring(2 * i, 2 * i + 2), 16);
    }
    return b;
  }
}
