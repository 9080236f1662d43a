package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shellQuote puts text into single quotes. It is for bash, zsh and fish alike, which differ in what a
// backslash means there: there is none in what we say of our commands, and a test keeps it so.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func bashCompletion(commands []documentedCommand) string {
	var script strings.Builder
	var names []string
	values := make(map[string]string) // what completes the value of each flag that takes one
	for _, command := range commands {
		names = append(names, command.name)
		for _, flag := range command.flags {
			switch {
			case flag.file:
				values[flag.name] = "compopt -o default"
			case len(flag.choices) > 0:
				values[flag.name] = fmt.Sprintf(`COMPREPLY=($(compgen -W %s -- "$current"))`, shellQuote(strings.Join(flag.choices, " ")))
			case flag.placeholder != "":
				values[flag.name] = ":"
			}
		}
	}
	script.WriteString(`# bash completion for millrace
_millrace() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	if [ "$current" = = ]; then
		current=
	elif [ "$previous" = = ]; then
		previous=${COMP_WORDS[COMP_CWORD-2]}
	fi
`)
	fmt.Fprintf(&script, "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W %s -- \"$current\"))\n\t\treturn\n\tfi\n", shellQuote(strings.Join(names, " ")))
	script.WriteString("\tcase $previous in\n")
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&script, "\t--%s) %s; return ;;\n", name, values[name])
	}
	script.WriteString("\tesac\n\tcase ${COMP_WORDS[1]} in\n")
	for _, command := range commands {
		words := slices.Clone(command.words)
		for _, flag := range command.flags {
			words = append(words, "--"+flag.name)
		}
		fmt.Fprintf(&script, "\t%s) COMPREPLY=($(compgen -W %s -- \"$current\")) ;;\n", command.name, shellQuote(strings.Join(words, " ")))
	}
	script.WriteString("\tesac\n}\ncomplete -F _millrace millrace\n")
	return script.String()
}

func zshCompletion(commands []documentedCommand) string {
	var script strings.Builder
	script.WriteString("#compdef millrace\n_millrace() {\n\tif (( CURRENT == 2 )); then\n\t\tlocal -a commands=(\n")
	for _, command := range commands {
		fmt.Fprintf(&script, "\t\t\t%s\n", shellQuote(command.name+":"+command.help))
	}
	script.WriteString("\t\t)\n\t\t_describe command commands\n\t\treturn\n\tfi\n\tshift words\n\t(( CURRENT-- ))\n\tcase $words[1] in\n")
	for _, command := range commands {
		fmt.Fprintf(&script, "\t%s)\n\t\t_arguments", command.name)
		for _, flag := range command.flags {
			fmt.Fprintf(&script, " \\\n\t\t\t%s", shellQuote(zshFlag(flag)))
		}
		if len(command.words) > 0 {
			fmt.Fprintf(&script, " \\\n\t\t\t%s", shellQuote("1:command:("+strings.Join(command.words, " ")+")"))
		}
		script.WriteString("\n\t\t;;\n")
	}
	script.WriteString("\tesac\n}\n_millrace \"$@\"\n")
	return script.String()
}

// zshFlag is the specification that _arguments takes: --name=[help]:placeholder:action.
func zshFlag(flag documentedFlag) string {
	plain := strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`)
	specification := "--" + flag.name
	if flag.placeholder != "" {
		specification += "="
	}
	specification += "[" + plain.Replace(flag.help) + "]"
	if flag.placeholder == "" {
		return specification
	}
	action := " "
	switch {
	case flag.file:
		action = "_files"
	case len(flag.choices) > 0:
		action = "(" + strings.Join(flag.choices, " ") + ")"
	}
	return specification + ":" + plain.Replace(flag.placeholder) + ":" + action
}

func fishCompletion(commands []documentedCommand) string {
	var script strings.Builder
	script.WriteString("# fish completion for millrace\ncomplete -c millrace -f\n")
	for _, command := range commands {
		fmt.Fprintf(&script, "complete -c millrace -n __fish_use_subcommand -a %s -d %s\n", command.name, shellQuote(command.help))
	}
	for _, command := range commands {
		condition := shellQuote("__fish_seen_subcommand_from " + command.name)
		for _, word := range command.words {
			fmt.Fprintf(&script, "complete -c millrace -n %s -a %s\n", condition, word)
		}
		for _, flag := range command.flags {
			fmt.Fprintf(&script, "complete -c millrace -n %s -l %s -d %s", condition, flag.name, shellQuote(flag.help))
			switch {
			case flag.file:
				script.WriteString(" -r -F")
			case len(flag.choices) > 0:
				fmt.Fprintf(&script, " -x -a %s", shellQuote(strings.Join(flag.choices, " ")))
			case flag.placeholder != "":
				script.WriteString(" -x")
			}
			script.WriteString("\n")
		}
	}
	return script.String()
}
