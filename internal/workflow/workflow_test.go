package workflow

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestStepsRunInOrderAndHandlersMakeUpForFailures(t *testing.T) {
	reg := prometheus.NewRegistry()
	bad := errors.New("bad")
	step := func(name string, err error, handle func(context.Context, *[]string, error) error) Step[*[]string] {
		return Step[*[]string]{Name: name, OnError: handle, Do: func(_ context.Context, v *[]string) error {
			*v = append(*v, name)
			return err
		}}
	}
	f := Define(NewMetrics(reg), "w", "1.0.0",
		step("a", nil, nil),
		step("b", bad, func(context.Context, *[]string, error) error { return nil }),
		step("c", bad, func(_ context.Context, _ *[]string, err error) error { return err }),
		step("d", nil, nil))
	var did []string
	if err := f.Run(t.Context(), "a", "b", &did); err != nil || !slices.Equal(did, []string{"a", "b"}) {
		t.Errorf("Run(a to b) = %v, did %v", err, did)
	}
	did = nil
	if err := f.Run(t.Context(), "b", "d", &did); !errors.Is(err, bad) || !slices.Equal(did, []string{"b", "c"}) {
		t.Errorf("Run(b to d) = %v, did %v; want it to end at c", err, did)
	}
	if n := testutil.ToFloat64(f.failures[1]); n != 2 {
		t.Errorf("b failed %v times in the metrics, want 2", n)
	}
	if got := testutil.CollectAndCount(reg, "parley_workflow_step_seconds"); got != 4 {
		t.Errorf("%d steps in the metrics, want 4", got)
	}
}
