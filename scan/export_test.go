package scan

// Apart makes a check read tables first and then keys, one at a time.
func (o CheckOptions) Apart() CheckOptions { o.apart = true; return o }

// ReadOnce is how many tables a check has read only once.
func (r *CheckResult) ReadOnce() int { return r.readOnce }
