// Package conformance runs containerd's own tests of snapshotters against uimgacc-snapshotter.
//
// UIMGACC_SNAPSHOTTER names the program. Each case gets a daemon with a root and a store of its
// own; the store is an empty folder, so everything is to behave as containerd's overlayfs.
package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func start(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	program := os.Getenv("UIMGACC_SNAPSHOTTER")
	if program == "" {
		return nil, nil, fmt.Errorf("UIMGACC_SNAPSHOTTER is not set")
	}
	socket := filepath.Join(filepath.Dir(root), "sock")
	var log bytes.Buffer
	daemon := exec.Command(program, "--root", root, "--store", filepath.Join(filepath.Dir(root), "store"),
		"--address", socket, "--log", "debug")
	daemon.Stderr = &log
	if err := daemon.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() error {
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := daemon.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, log.String())
		}
		return mount.UnmountRecursive(root, 0)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("no socket: %s", log.String())
		}
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	closeAll := func() error {
		connection.Close()
		return stop()
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "uimgacc"), closeAll, nil
}

func TestSuite(t *testing.T) {
	testsuite.SnapshotterSuite(t, "overlayfs", start)
}
