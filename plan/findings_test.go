package plan

// findings has an example of each finding of a check, so that the test of all problems covers them.
func findings() []Problem {
	return []Problem{
		&LastReplica{Store: 1, Region: 7},
		&TailStops{Store: 1, Region: 7, Index: 30, Limit: 40, Reason: "r"},
		&RaftLogDamage{Store: 1, Path: "raft-engine/0000000000000001.raftlog", Reason: "r"},
		&DamagedFile{Store: 1, Path: "db/000012.sst", CF: "write", Reason: "checksum", Regions: []uint64{2, 4}, More: 3},
		&DamagedFile{Path: "db/titandb/000007.blob", Reason: "missing", Values: 2},
		&VersionRule{Rule: 2, CF: "write", Reason: "level 1: file 4 ends behind the start of file 5"},
		&WrongProperties{Path: "db/000012.sst", MinTS: 5, MaxTS: 6, Key: "7A", Commit: 7},
		&UnreadablePart{Part: "raft store", Path: "raft-engine", Reason: "r"},
		&UnreadablePart{Part: "raft store", Path: "raft-engine", Reason: "another", Hint: "restore the file"},
		&UnreadableValue{Store: 1, CF: "default", Key: "7A", Reason: "checksum"},
		&LostValue{Store: 1, Key: "AB", CommitTS: 7, StartTS: 6}, &LostValue{Store: 1, Key: "AB", Lock: true, StartTS: 6},
		&OrphanRow{Store: 1, Key: "AB", StartTS: 6},
		&TimestampOrder{Store: 1, Key: "AB", Type: "put", CommitTS: 6, StartTS: 7},
		&TimestampOrder{Store: 1, Key: "AB", Type: "rollback", CommitTS: 6, StartTS: 7},
		&StrayKeys{Store: 1, CF: "raft", Records: 1, First: "0109"}, &StrayKeys{Store: 1, CF: "default", Records: 2, First: "7A"},
		&OutsideData{Store: 1, Start: "7A", End: "7A01", Records: map[string]uint64{"write": 2, "default": 1}},
		&RegionGap{Store: 1, Start: "74", End: "75", After: 2, Before: 3}, &RegionGap{Store: 1, Start: "75", After: 3}, &RegionGap{Store: 1, End: "74", Before: 2},
		&RegionOverlap{Store: 1, Region: 2, Other: 3, Start: "74", End: "75", Version: 4, Against: 5},
		&RegionTransition{Store: 1, Region: 2, State: "Merging"}, &RegionTransition{Store: 1, Region: 2, State: "Applying"},
		&RegionTransition{Store: 1, Region: 2, State: "Unavailable"}, &RegionTransition{Store: 1, Region: 2, State: "Flashback"},
		&RegionTransition{Store: 1, Region: 2, State: "9"},
		&RegionStartLine{Store: 1, Region: 2, Rule: 6, Lines: "up to 8.0", Reason: "r"},
		&RegionStartLine{Store: 1, Region: 2, Rule: 6, Lines: "up to 8.0", Reason: "r", Newer: true},
		&RegionStartLine{Store: 1, Region: 2, Rule: 13, Reason: "r"},
		&RaftEntries{Store: 1, Region: 2, From: 6, To: 8, Applied: 9, Reason: "missing"},
		&RaftEntries{Store: 1, Region: 2, From: 6, To: 6, Applied: 5, Reason: "does not decode"},
		&StoreIdentity{Reason: "it is missing"},
		&EncryptionLeftover{Path: "file.dict", Entries: 3, Torn: 4},
		&Fenced{Store: 1, PlanID: "20260102T150405Z-1"},
	}
}
