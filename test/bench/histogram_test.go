package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing = %s, want 0", got)
	}
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(1) << random.IntN(40)
		d += time.Duration(random.Int64N(int64(d)))
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 1} {
		want := all[int(q*float64(len(all)))-1]
		if got := h.Quantile(q); float64(got) < 0.96*float64(want) || got > want {
			t.Errorf("quantile(%g) = %s, want at most 4 %% below %s", q, got, want)
		}
	}
}

func TestBucketsAreInOrderWithoutHoles(t *testing.T) {
	for b := range buckets - 8*subBuckets { // the last ones are beyond what an int64 of nanoseconds holds
		if got := bucketOf(lowestOf(b)); got != b {
			t.Fatalf("bucketOf(lowestOf(%d)) = %d", b, got)
		}
		if b > 0 && bucketOf(lowestOf(b)-1) != b-1 {
			t.Fatalf("bucketOf just below bucket %d = %d", b, bucketOf(lowestOf(b)-1))
		}
	}
}
