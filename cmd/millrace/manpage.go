package main

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/settings"
)

// manPage writes millrace(1) in the language of man(7).
func manPage(about string, commands []documentedCommand) string {
	var page strings.Builder
	page.WriteString(".TH MILLRACE 1\n")
	page.WriteString(".SH NAME\nmillrace \\- gateway that brings events from Redis to browsers\n")
	page.WriteString(".SH SYNOPSIS\n.nf\n")
	for _, command := range commands {
		fmt.Fprintf(&page, "\\fBmillrace %s\\fR %s\n", roff(command.name), roff(command.usage))
	}
	page.WriteString(".fi\n.SH DESCRIPTION\n")
	page.WriteString(roffLine(about))
	page.WriteString(".PP\nEvery setting of \\fBmillrace serve\\fR is a flag, an environment variable and a key of one YAML file, by the\n" +
		"same name; flags win over variables, variables over the file. \\fBmillrace check\\fR says what is wrong with them.\n")
	for _, command := range commands {
		writeManCommand(&page, command)
	}
	page.WriteString(".SH SIGNALS\n.TP\nSIGTERM, SIGINT\nDrain: accept nothing new, end every stream in order, and exit within \\-\\-drain\\-timeout. A second one exits at once.\n")
	page.WriteString(".SH ENVIRONMENT\n")
	for _, field := range settings.Fields() {
		if field.Environment != "" {
			fmt.Fprintf(&page, ".TP\n\\fB%s\\fR\nAs \\-\\-%s.\n", roff(field.Environment), roff(field.Name))
		}
	}
	page.WriteString(".SH FILES\n.TP\n\\fI/etc/millrace/millrace.yaml\\fR\nThe configuration that the systemd units name.\n")
	page.WriteString(".SH EXIT STATUS\n.TP\n0\nIt did what it was asked.\n.TP\n1\nIt failed.\n.TP\n2\nThe command line was wrong.\n")
	page.WriteString(".SH SEE ALSO\n.BR redis\\-server (1),\n.BR systemd.service (5)\n.PP\nhttps://github.com/millrace/millrace\n")
	return page.String()
}

func writeManCommand(page *strings.Builder, command documentedCommand) {
	fmt.Fprintf(page, ".SH %s\n%s", strings.ToUpper(roff("millrace "+command.name)), roffLine(command.help))
	if len(command.words) > 0 {
		fmt.Fprintf(page, ".PP\nBelow it: %s.\n", roff(strings.Join(command.words, ", ")))
	}
	group := ""
	for _, flag := range command.flags {
		if flag.group != group {
			group = flag.group
			fmt.Fprintf(page, ".SS %s\n", roff(group))
		}
		page.WriteString(".TP\n")
		fmt.Fprintf(page, "\\fB\\-\\-%s\\fR", roff(flag.name))
		if flag.placeholder != "" {
			fmt.Fprintf(page, "=\\fI%s\\fR", roff(flag.placeholder))
		}
		page.WriteString("\n" + roffLine(flag.help))
	}
}

// roff writes text so that nothing in it is a command of man(7) or another glyph.
func roff(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "\\`", "^", `\(ha`, "~", `\(ti`).Replace(text)
}

// roffLine is roff for a line of its own, which no first letter may turn into a request.
func roffLine(text string) string { return `\&` + roff(strings.TrimSpace(text)) + "\n" }
