package raftstate

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// ImportName is the name of a file in import/, which an IngestSST command refers to by its uuid.
//
//	uuid (lower-case hex, 8-4-4-4-12) _ region _ conf_ver _ version [_ cf [_ more]] .sst
//
// cf is missing in files of 3.0; later releases append fields of their own. Numbers are decimal.
// Source: tikv/tikv components/sst_importer/src/import_file.rs (sst_meta_to_path, parse_meta_from_path).
type ImportName struct {
	UUID   Key // 16 bytes
	Region uint64
	Epoch  Epoch  // of the region when the file was made
	CF     string // "" when the name does not say
	More   string // what follows the family, without the first underscore
}

// UUIDText gives 16 bytes in the form of file names; "" for any other number of bytes.
func UUIDText(uuid []byte) string {
	if len(uuid) != 16 {
		return ""
	}
	h := hex.EncodeToString(uuid)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// String gives the file name.
func (n ImportName) String() string {
	u := func(v uint64) string { return strconv.FormatUint(v, 10) }
	parts := []string{UUIDText(n.UUID), u(n.Region), u(n.Epoch.ConfVer), u(n.Epoch.Version)}
	if n.CF != "" {
		parts = append(parts, n.CF)
	}
	if n.More != "" {
		parts = append(parts, n.More)
	}
	return strings.Join(parts, "_") + ".sst"
}

// ParseImportName reads a file name of import/; ok is false for one that is not of this form, to the letter.
func ParseImportName(name string) (n ImportName, ok bool) {
	stem, cut := strings.CutSuffix(name, ".sst")
	parts := strings.SplitN(stem, "_", 6)
	if !cut || len(parts) < 4 {
		return ImportName{}, false
	}
	uuid, err := hex.DecodeString(strings.ReplaceAll(parts[0], "-", ""))
	if err != nil || len(uuid) != 16 {
		return ImportName{}, false
	}
	n.UUID = uuid
	for i, to := range []*uint64{&n.Region, &n.Epoch.ConfVer, &n.Epoch.Version} {
		if *to, err = strconv.ParseUint(parts[1+i], 10, 64); err != nil {
			return ImportName{}, false
		}
	}
	if len(parts) > 4 {
		n.CF = parts[4]
	}
	if len(parts) > 5 {
		n.More = parts[5]
	}
	return n, n.String() == name
}
