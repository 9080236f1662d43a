package main

import (
	"fmt"

	"github.com/millrace/millrace/internal/settings"
)

// checkCommand is `millrace check`: it takes the flags of serve, so that a whole command line can
// be checked.
type checkCommand struct {
	settings.Settings `embed:""`

	Print bool `name:"print" help:"Print the effective configuration as a valid file, without secrets."`
}

// Run says everything that is wrong, or one line when nothing is.
func (c *checkCommand) Run(world *process) error {
	loaded, _ := checked(c.Settings, world)
	for _, warning := range loaded.Warnings {
		fmt.Fprintln(world.stderr, "millrace: warning:", warning.Error())
	}
	if len(loaded.Problems) > 0 {
		complain(world.stderr, loaded.Problems)
		return errSilent
	}
	if c.Print {
		printed, err := loaded.Print()
		if err != nil {
			return err
		}
		_, err = world.stdout.Write(printed)
		return err
	}
	source := loaded.Settings.Config
	if source == "" {
		source = "settings"
	}
	_, err := fmt.Fprintf(world.stdout, "%s: ok: %s\n", source, summary(&loaded.Settings))
	return err
}

// summary says in half a line what a gateway with these settings does.
func summary(configured *settings.Settings) string {
	source, who := "this process's memory", "no authentication"
	if configured.Redis != "" {
		source = configured.Redis.String()
	}
	if configured.Authenticated() {
		who = "tokens are verified"
	}
	return fmt.Sprintf("listen %s, events from %s, %s", configured.Listen, source, who)
}
