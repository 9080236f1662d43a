package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// fileBytesMax bounds every file that a setting names: a configuration, a secret, a key.
const fileBytesMax = 1 << 20

// readBounded reads a whole file of at most fileBytesMax. Its errors name the path.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, errFile(path, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, fileBytesMax+1))
	if err != nil {
		return nil, errFile(path, err)
	}
	if len(content) > fileBytesMax {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, fileBytesMax)
	}
	return content, nil
}

// errFile says what to do about a file that can't be read.
func errFile(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read by this user: change its owner or mode", path)
	default:
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return fmt.Errorf("%s can't be read: %w", path, err)
	}
}

// readFile reads the configuration file into target and notes where each value stood.
// named is where the path itself came from.
func (l *Loaded) readFile(path string, named Source, target *Settings) {
	content, err := readBounded(path)
	if err != nil {
		l.Problems = append(l.Problems, Problem{Source: named, Setting: "config", Message: err.Error()})
		return
	}
	root, problem := parseYAML(path, content)
	if problem != nil {
		l.Problems = append(l.Problems, *problem)
		return
	}
	if root == nil {
		return
	}
	reader := nodeReader{loaded: l, file: path}
	if root.Kind != yaml.MappingNode {
		reader.fail(root, "", "expected settings as NAME: VALUE, one a line, such as listen: 127.0.0.1:8080")
		return
	}
	reader.settings(root, target)
}

// yamlLine finds the line in an error of the YAML parser, which gives it as text only.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// parseYAML gives the file's one document, or nil for an empty file.
func parseYAML(path string, content []byte) (*yaml.Node, *Problem) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, syntaxProblem(path, content, err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return nil, &Problem{
			Source:  Source{File: path, Line: second.Line, Column: second.Column},
			Message: "a second document begins here; put all settings into one",
		}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxProblem(path, content, err)
	}
	return document.Content[0], nil
}

// syntaxProblem turns the parser's error into one with a place. The commonest cause, a tab, is
// looked for and named.
func syntaxProblem(path string, content []byte, err error) *Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	// The parser leaves the line out where it is the first.
	problem := &Problem{Source: Source{File: path, Line: 1}}
	if match := yamlLine.FindStringSubmatchIndex(message); match != nil {
		// The pattern matched digits; a number too large for an int stays 0, no line.
		problem.Source.Line, _ = strconv.Atoi(message[match[2]:match[3]])
		message = message[:match[0]] + message[match[1]:]
	}
	for number, line := range bytes.Split(content, []byte("\n")) {
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if tab := bytes.IndexByte(indent, '\t'); tab >= 0 && len(bytes.TrimSpace(line)) > 0 {
			problem.Source.Line, problem.Source.Column = number+1, tab+1
			message = "a tab indents this line; YAML wants spaces"
			break
		}
	}
	problem.Message = "this is not YAML: " + message
	return problem
}
