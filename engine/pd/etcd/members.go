package etcd

import "strconv"

// memberHex writes a member id as etcd does: lower-case hex without leading zeros.
func memberHex(id uint64) string { return strconv.FormatUint(id, 16) }
