// Package logwatch looks for secrets in what processes under test log.
//
// A suite tells a [Watch] the secrets that it uses, shows it every line that its processes log, and
// asks it at the end. So a secret is found whichever test, route or mistake lets it out, also in
// tests that are about something else.
package logwatch

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// leaksMax is how many leaks are kept.
const leaksMax = 20

// token is what every JSON Web Token begins with: an object in base64. A token cut short is found,
// too.
var token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{12}`)

// Watch looks for secrets. The zero value knows the shape of tokens. It is safe for use by many
// goroutines.
type Watch struct {
	mutex   sync.Mutex
	secrets map[string]string // what it is, by a form in which it may be written
	lines   int
	leaks   []string
}

// Secret tells of a secret, and gives it back. what names it in a failure.
func (w *Watch) Secret(what, secret string) string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.secrets == nil {
		w.secrets = make(map[string]string)
	}
	for _, form := range []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), url.UserPassword("", secret).String()[1:],
		base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
	} {
		w.secrets[form] = what
	}
	return secret
}

// Line shows a line that a process has logged. source names the process.
func (w *Watch) Line(source, line string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.lines++
	found := ""
	if strings.Contains(line, "eyJ") && token.MatchString(line) {
		found = "something of the shape of a token"
	}
	for form, what := range w.secrets {
		if strings.Contains(line, form) {
			found = what
		}
	}
	if found != "" && len(w.leaks) < leaksMax {
		w.leaks = append(w.leaks, fmt.Sprintf("%s logged %s: %.300s", source, found, line))
	}
}

// Lines is how many lines were shown.
func (w *Watch) Lines() int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.lines
}

// Verdict is an error that names the lines with secrets, at most the first 20.
func (w *Watch) Verdict() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.leaks) == 0 {
		return nil
	}
	return errors.New(strings.Join(w.leaks, "\n"))
}
