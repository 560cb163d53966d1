package scan

// Apart makes a check read tables first and then keys, one at a time.
func (o CheckOptions) Apart() CheckOptions { o.apart = true; return o }

// ReadOnce is how many tables a check has read only once.
func (r *CheckResult) ReadOnce() int { return r.readOnce }

// SliceSize sets the least size of the tables that one thread dumps at a time, and gives a function that sets it back.
func SliceSize(n int64) (back func()) {
	old := sliceSize
	sliceSize = n
	return func() { sliceSize = old }
}
