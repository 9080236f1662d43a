package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// RoleCommand is the first argument with which the harness starts its own binary in a role, the
// name of which is the second. Whoever builds the harness into a binary passes what follows it to
// [RunRole].
const RoleCommand = "bench-role"

// The roles.
const (
	roleCrowd = "crowd"
	roleFloor = "floor"
	rolePlain = "plain"
)

// errRole says that a role was started wrongly.
var errRole = errors.New("bench: the roles are " + strings.Join([]string{roleCrowd, roleFloor, rolePlain}, ", "))

// RunRole runs a process of the harness until its input ends, ctx is done, or it is killed.
// arguments are the role's name and its flags.
func RunRole(ctx context.Context, arguments []string, in io.Reader, out io.Writer) error {
	if len(arguments) == 0 {
		return errRole
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	listen := flags.String("listen", "", "HOST:PORT for subscribers")
	feed := flags.String("feed", "", "HOST:PORT for lines")
	gather := flags.Bool("gather", false, "one writev for all that waits")
	if err := flags.Parse(arguments[1:]); err != nil {
		return fmt.Errorf("role %s: %w", arguments[0], err)
	}
	switch arguments[0] {
	case roleCrowd:
		return runCrowd(ctx, in, out)
	case roleFloor:
		return runFloor(*listen, *feed, *gather)
	case rolePlain:
		return runPlain(*listen, *feed)
	}
	return errRole
}

// descriptorsMax is how many descriptors one process may have here.
func descriptorsMax() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<20))
}
