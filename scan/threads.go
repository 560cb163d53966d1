package scan

// sourceMemory is about what a stream takes for each sorted part that it merges: what is read ahead, a decompressed block, its keys.
const sourceMemory = 512 << 10

// threads is how many of the wanted threads can stream the column families at once within a half of the bound of the memory; at least one.
func (s *Store) threads(want int, cfs ...string) int {
	if s.o.Memory <= 0 {
		return want
	}
	sources := 0
	for _, name := range cfs {
		for level, files := range s.DB.CF(name).Meta.Levels {
			if level == 0 {
				sources += len(files)
			} else if len(files) > 0 {
				sources++
			}
		}
	}
	return max(1, min(want, int(s.o.Memory/2/int64(max(1, sources)*sourceMemory))))
}
