package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/millrace/millrace/internal/settings"
)

// documentCommand prints what a package ships beside the binary, made from the command line that this
// binary really has. It is hidden: packages and `make release` call it.
type documentCommand struct {
	Form string `arg:"" enum:"man,bash,zsh,fish" help:"A man page, or the completions of a shell: man, bash, zsh or fish."`
}

// Run prints the document.
func (c *documentCommand) Run(world *process, parsed *kong.Context) error {
	commands := documented(parsed.Model.Node)
	var text string
	switch c.Form {
	case "man":
		text = manPage(parsed.Model.Help, commands)
	case "bash":
		text = bashCompletion(commands)
	case "zsh":
		text = zshCompletion(commands)
	case "fish":
		text = fishCompletion(commands)
	}
	_, err := world.stdout.Write([]byte(text))
	return err
}

// documentedCommand is one command as people see it. What stands below a command of two words is
// its own: `bench run` is what `bench` does unless something else is asked for.
type documentedCommand struct {
	name, help, usage string
	words             []string // the commands below it
	flags             []documentedFlag
}

// documentedFlag is one flag of a command.
type documentedFlag struct {
	name, help, group string
	placeholder       string // empty where it takes no value
	choices           []string
	file              bool // its value is a path
}

// documented gives the commands that are not hidden.
func documented(root *kong.Node) []documentedCommand {
	var commands []documentedCommand
	for _, node := range root.Children {
		if node.Hidden {
			continue
		}
		command := documentedCommand{name: node.Name, help: node.Help, usage: usageOf(node)}
		seen := make(map[string]bool)
		leaves := []*kong.Node{node}
		if !node.Leaf() {
			leaves = node.Leaves(true)
		}
		for _, leaf := range leaves {
			if leaf != node {
				command.words = append(command.words, leaf.Name)
			}
			for _, flag := range leaf.Flags {
				if !flag.Hidden && !seen[flag.Name] {
					seen[flag.Name] = true
					command.flags = append(command.flags, documentFlag(flag))
				}
			}
		}
		commands = append(commands, command)
	}
	return commands
}

// usageOf gives what follows the command's name, in short.
func usageOf(node *kong.Node) string {
	leaf := node
	if !node.Leaf() && node.DefaultCmd != nil {
		leaf = node.DefaultCmd
	}
	usage := "[FLAG]..."
	for _, argument := range leaf.Positional {
		usage += " " + argument.Summary()
	}
	return usage
}

// plainChoices matches the bound of a setting that is a list of words.
var plainChoices = regexp.MustCompile(`^[a-z]+(, [a-z]+)+$`)

func documentFlag(flag *kong.Flag) documentedFlag {
	documented := documentedFlag{name: flag.Name, help: flag.Help}
	if flag.Group != nil {
		documented.group = flag.Group.Title
	}
	if !flag.IsBool() {
		documented.placeholder = strings.Trim(flag.FormatPlaceHolder(), `"`)
		documented.choices = slices.DeleteFunc(flag.EnumSlice(), func(choice string) bool { return choice == "" })
		documented.file = flag.PlaceHolder == "FILE" || flag.PlaceHolder == "DIRECTORY"
	}
	for _, field := range settings.Fields() {
		if field.Name == flag.Name && plainChoices.MatchString(field.Bound) {
			documented.choices = strings.Split(field.Bound, ", ")
		}
	}
	return documented
}
