package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
)

// What one container costs: containerd's overlayfs inside the process against ours behind its socket.
// Run: UIMGACC_SNAPSHOTTER=... go test -run - -bench . -args -test.root
func BenchmarkContainer(b *testing.B) {
	b.Run("overlayfs", func(b *testing.B) {
		run(b, func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
			snapshotter, err := overlay.NewSnapshotter(root)
			return snapshotter, func() error { return nil }, err
		})
	})
	b.Run("uimgacc", func(b *testing.B) { run(b, start) })
}

func run(b *testing.B, open func(context.Context, string) (snapshots.Snapshotter, func() error, error)) {
	ctx := context.Background()
	folder, err := os.MkdirTemp(os.Getenv("UIMGACC_BENCH_DIR"), "uimgacc-bench-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(folder)
	root := filepath.Join(folder, "root")
	if err := os.Mkdir(root, 0700); err != nil {
		b.Fatal(err)
	}
	snapshotter, stop, err := open(ctx, root)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			b.Error(err)
		}
	}()
	// A parent of five layers, and a hundred other snapshots, as a node has them.
	parent := ""
	for n := range 100 {
		key, name := fmt.Sprintf("key-%d", n), fmt.Sprintf("layer-%d", n)
		below := parent
		if n >= 5 {
			below = ""
		}
		if _, err := snapshotter.Prepare(ctx, key, below); err != nil {
			b.Fatal(err)
		}
		if err := snapshotter.Commit(ctx, name, key); err != nil {
			b.Fatal(err)
		}
		if n < 5 {
			parent = name
		}
	}
	b.ResetTimer()
	for n := range b.N {
		key := fmt.Sprintf("container-%d", n)
		if _, err := snapshotter.Prepare(ctx, key, parent); err != nil {
			b.Fatal(err)
		}
		if _, err := snapshotter.Mounts(ctx, key); err != nil {
			b.Fatal(err)
		}
		if err := snapshotter.Remove(ctx, key); err != nil {
			b.Fatal(err)
		}
	}
}
