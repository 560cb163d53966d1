package sst

import (
	"slices"
)

// OptionsLike gives the profile in which r's file was written, so that its content can be written again: compression,
// block size, filter, column family, prefix extractor, creation times. Collectors and FileNumber are left to the caller.
//
// A compression that the writer does not have becomes ZSTD, which every TiKV reads; format version 6 becomes 5. The filter is left out
// where its kind cannot be told, or its prefixes are not known: a missing filter is always safe.
func OptionsLike(r *Reader) WriterOptions {
	p := r.props
	o := WriterOptions{
		FormatVersion:    min(max(r.foot.version, minVersion), MaxWriterVersion),
		Checksum:         r.foot.checksum,
		FilterPolicy:     p.FilterPolicy,
		Compression:      likeCompression(r),
		BlockSize:        likeBlockSize(r),
		Filter:           likeFilter(r),
		CFID:             p.CFID,
		CFName:           p.CFName,
		PrefixExtractor:  p.PrefixExtractor,
		CreationTime:     p.CreationTime,
		OldestKeyTime:    p.OldestKeyTime,
		FileCreationTime: p.FileCreationTime,
	}
	if o.Filter != FilterNone {
		o.FilterForm, o.FilterMillibits = likeForm(r)
	}
	return o
}

// likeForm tells how r's filter was built. Its bits a key are TiKV's default where that gives as many probes, else about what the block
// has.
func likeForm(r *Reader) (FilterForm, int) {
	f, err := r.Filter()
	if err != nil || f == nil || f.always {
		return FormBloom, DefaultFilterMillibits
	}
	bits := int(8000 * uint64(len(f.data)) / max(r.props.NumFilterEntries, 1) / 1000 * 1000)
	bits = min(max(bits, 1000), 100_000)
	switch {
	case f.form == FormRibbon, f.form == FormFastBloom && f.probes == fastBloomProbes(DefaultFilterMillibits),
		f.form == FormLegacyBloom && f.probes == legacyProbes(DefaultFilterMillibits):
		bits = DefaultFilterMillibits
	}
	return f.form, bits
}

func likeCompression(r *Reader) byte {
	code, ok := CompressionCode(r.props.Compression)
	if !ok {
		code = CompressionNone
		for i := 0; i < len(r.index) && code == CompressionNone; i += max(1, len(r.index)/4) {
			if raw, err := r.rawBlock(r.index[i].h, nil); err == nil {
				code = raw[r.index[i].h.size]
			}
		}
	}
	switch code {
	case CompressionNone, CompressionSnappy, CompressionLZ4, CompressionLZ4HC, CompressionZSTD:
		return code
	}
	return CompressionZSTD
}

// likeBlockSize rounds the median size of some decompressed blocks up to a power of two: RocksDB cuts blocks just below
// their nominal size, unless one record is larger. The last block is cut short and does not count.
func likeBlockSize(r *Reader) int {
	n := len(r.index) - 1
	if n < 1 {
		return DefaultBlockSize
	}
	var sizes []int
	var raw, dec []byte
	for i := 0; i < n; i += max(1, n/7) {
		var payload []byte
		var err error
		if payload, raw, dec, err = r.readBlock(r.index[i].h, raw, dec); err == nil {
			sizes = append(sizes, len(payload))
		}
	}
	if len(sizes) == 0 {
		return DefaultBlockSize
	}
	slices.Sort(sizes)
	median, size := sizes[len(sizes)/2], 4<<10
	for size < median && size < 256<<10 {
		size *= 2
	}
	return size
}

func likeFilter(r *Reader) FilterKind {
	p := r.props
	if !r.HasFilter() || !p.WholeKeyFilter && !p.PrefixFilter {
		return FilterNone
	}
	return Filterable(p.WholeKeyFilter, p.PrefixExtractor)
}
