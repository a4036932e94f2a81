package bench

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// A bucket of a Histogram is as wide as a 32nd of the power of two that it is in: figures are right to about 3 %.
const (
	subBuckets = 32
	buckets    = 64 * subBuckets
)

// A Histogram counts durations; its zero value counts none. Its methods may be called from any goroutine.
type Histogram struct {
	counts [buckets]atomic.Int64
}

// Add counts d; less than nothing counts as 0.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(max(0, d))].Add(1)
}

// bucketOf returns the place of d: below subBuckets nanoseconds itself, then 32 places for each power of two.
func bucketOf(d time.Duration) int {
	n := uint64(d)
	if n < subBuckets {
		return int(n)
	}
	shift := bits.Len64(n) - 6 // leaves 6 bits: a leading one and 5 that choose among 32
	return (shift+1)*subBuckets + int(n>>shift) - subBuckets
}

// lowestOf returns the smallest duration of a bucket.
func lowestOf(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket/subBuckets - 1
	return time.Duration(uint64(subBuckets+bucket%subBuckets) << shift)
}

// Count returns how many have been counted.
func (h *Histogram) Count() (n int64) {
	for i := range h.counts {
		n += h.counts[i].Load()
	}
	return n
}

// Quantile returns the duration that the share q (0 to 1) of all counted ones does not exceed, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(h.Count())))
	var seen int64
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank && seen > 0 {
			return lowestOf(i)
		}
	}
	return 0
}
