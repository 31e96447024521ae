// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// pauseImage is what every Pod's sandbox runs.
const pauseImage = "localhost/apigw-node-pause:1"

//go:embed pause/main.go
var pauseSource []byte

// An Image says what [Node.BuildImage] builds. No registry can be reached: every FROM names scratch, or an earlier stage.
type Image struct {
	// ContextDir is the directory that COPY copies from.
	ContextDir string
	// Dockerfile is its path; empty means Dockerfile in ContextDir.
	Dockerfile string
	// Tag names the image in full, for example "localhost/apigw-guardian:e2e".
	Tag string
	// Target is the stage to build; empty means the last.
	Target string
	// BuildArgs are values of the Dockerfile's ARGs.
	BuildArgs map[string]string
}

// BuildImage builds an image with buildah and returns the path of its archive in the form of `docker save`, which lasts as
// long as the node. Every file in it has the time 0, so that equal content makes an equal image. The network namespace holds
// for RUN too.
func (n *Node) BuildImage(ctx context.Context, image Image) (archive string, err error) {
	arguments := []string{
		"bud", "--isolation=chroot", "--timestamp=0", "--tag=" + image.Tag,
		"--file=" + cmp.Or(image.Dockerfile, filepath.Join(image.ContextDir, "Dockerfile")),
	}
	if image.Target != "" {
		arguments = append(arguments, "--target="+image.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(image.BuildArgs)) {
		arguments = append(arguments, "--build-arg="+name+"="+image.BuildArgs[name])
	}
	if err := n.buildah(ctx, append(arguments, image.ContextDir)...); err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(n.claim.Dir, "image-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the image: %w", err)
	}
	archive = filepath.Join(folder, "image.tar")
	return archive, n.buildah(ctx, "push", image.Tag, "docker-archive:"+archive+":"+image.Tag)
}

// ExportImage writes an image that BuildImage has built into a directory as a registry would store it: an OCI image layout with
// compressed layers.
func (n *Node) ExportImage(ctx context.Context, tag, folder string) error {
	return n.buildah(ctx, "push", tag, "oci:"+folder)
}

// ImportImage gives the node the images of an archive. Pods use them with imagePullPolicy IfNotPresent or Never.
func (n *Node) ImportImage(ctx context.Context, archive string) error {
	return run(n.ctr(ctx, "images", "import", archive))
}

// Containers returns the ids of all containers that have the name in their Pods, also of those that have ended and are still
// there. It asks containerd: what the API server knows is older.
func (n *Node) Containers(ctx context.Context, name string) ([]string, error) {
	list := n.ctr(ctx, "containers", "list", "--quiet", fmt.Sprintf(`labels."io.kubernetes.container.name"==%q`, name))
	output, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the containers %q: %w", name, err)
	}
	return strings.Fields(string(output)), nil
}

// ErrNotRunning is returned for a container that has ended.
var ErrNotRunning = errors.New("the container does not run")

// KillContainer kills a running container, by its id, as `kill -9` does; kubelet starts it again. The error wraps
// [ErrNotRunning] if it has ended already.
func (n *Node) KillContainer(ctx context.Context, id string) error {
	err := run(n.ctr(ctx, "tasks", "kill", "--signal=SIGKILL", id))
	if err != nil && strings.Contains(err.Error(), "not found") { // containerd's errdefs.ErrNotFound, as ctr prints it
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return err
}

func (n *Node) ctr(ctx context.Context, arguments ...string) *exec.Cmd {
	connection := []string{"--address=" + n.containerdSocket(), "--namespace=" + cgroupParent}
	return n.Command(ctx, "ctr", slices.Concat(connection, arguments)...)
}

func (n *Node) buildah(ctx context.Context, arguments ...string) error {
	storage := []string{"--storage-driver=vfs", "--root=" + n.path("buildah", "root"), "--runroot=" + n.path("buildah", "run")}
	command := n.Command(ctx, "buildah", slices.Concat(storage, arguments)...)
	return run(command)
}

// importPause makes the image of the sandboxes.
func (n *Node) importPause(ctx context.Context) error {
	folder := n.path("pause")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("make the directory of the pause image: %w", err)
	}
	source := filepath.Join(folder, "main.go")
	files := map[string]string{
		source:                              string(pauseSource),
		filepath.Join(folder, "Dockerfile"): "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n",
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the pause image: %w", err)
		}
	}
	if err := BuildProgram(ctx, source, filepath.Join(folder, "pause")); err != nil {
		return err
	}
	archive, err := n.BuildImage(ctx, Image{ContextDir: folder, Tag: pauseImage})
	if err != nil {
		return err
	}
	return n.ImportImage(ctx, archive)
}

// BuildProgram builds a Go program, one file or a package, into a static file for an image.
func BuildProgram(ctx context.Context, source, target string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", target, source)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	return run(command)
}

// run runs a command; its error shows what the command printed.
func run(command *exec.Cmd) error {
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}
