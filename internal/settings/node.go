package settings

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// nodeReader reads YAML nodes into values, strictly: an unknown key, a key twice, a value of the
// wrong kind or none at all is a problem with a place. It goes on after each problem.
type nodeReader struct {
	loaded *Loaded
	file   string
}

// depthMax bounds how deep a file's values may nest, aliases included.
const depthMax = 16

func (r *nodeReader) source(node *yaml.Node) Source {
	return Source{File: r.file, Line: node.Line, Column: node.Column}
}

func (r *nodeReader) fail(node *yaml.Node, path, message string) {
	r.loaded.Problems = append(r.loaded.Problems, Problem{Source: r.source(node), Setting: path, Message: message})
}

// settings reads the top level.
func (r *nodeReader) settings(root *yaml.Node, target *Settings) {
	r.mapping(root, "", func(key string, keyNode, value *yaml.Node) {
		position := slices.IndexFunc(fields(), func(field Field) bool { return field.Name == key && field.InFile })
		if position < 0 {
			r.fail(keyNode, "", fmt.Sprintf("unknown setting %q%s", cut(key), r.hint(key)))
			return
		}
		field := fields()[position]
		read := reflect.New(field.value(target).Type()).Elem()
		if !r.value(value, read, key, 0) && read.Kind() != reflect.Map && read.Kind() != reflect.Struct {
			return // of a map or a section, the good entries are kept and checked further
		}
		if err := field.checkRange(read); err != nil {
			r.fail(value, key, err.Error())
			return
		}
		field.value(target).Set(read)
		r.loaded.sources[key] = r.source(value)
	})
}

// hint says what an unknown key of the top level may have been meant as.
func (r *nodeReader) hint(key string) string {
	if key == "config" {
		return "; a file can't name another one"
	}
	if near := suggestion(key, names()); near != "" {
		return near
	}
	return "; `millrace check --print` shows all of them"
}

// mapping calls each for every key of a mapping, once per key.
func (r *nodeReader) mapping(node *yaml.Node, path string, each func(key string, keyNode, value *yaml.Node)) {
	seen := map[string]int{}
	for index := 0; index+1 < len(node.Content); index += 2 {
		keyNode, value := node.Content[index], node.Content[index+1]
		if keyNode.Kind != yaml.ScalarNode {
			r.fail(keyNode, path, "expected a name; got "+kindName(keyNode))
			continue
		}
		if keyNode.Tag == "!!merge" {
			r.fail(keyNode, path, "merge keys (<<) are not supported; write the settings out")
			continue
		}
		if line, twice := seen[keyNode.Value]; twice {
			r.fail(keyNode, path, fmt.Sprintf("%q stands here a second time, first on line %d; remove one", cut(keyNode.Value), line))
			continue
		}
		seen[keyNode.Value] = keyNode.Line
		each(keyNode.Value, keyNode, value)
	}
}

// value reads one value and says whether it was well formed.
func (r *nodeReader) value(node *yaml.Node, target reflect.Value, path string, depth int) bool {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if depth > depthMax {
		r.fail(node, path, "nested too deeply")
		return false
	}
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		r.fail(node, path, fmt.Sprintf("there is no value; expected %s, or remove the line", expected(target)))
		return false
	}
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
		return r.value(node, target.Elem(), path, depth+1)
	}
	_, isText := target.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case isText:
		return r.scalar(node, target, path)
	case target.Kind() == reflect.Slice:
		return r.list(node, target, path, depth)
	case target.Kind() == reflect.Map:
		return r.table(node, target, path, depth)
	case target.Kind() == reflect.Struct:
		return r.structure(node, target, path, depth)
	default:
		return r.scalar(node, target, path)
	}
}

// scalar reads a single value from its text as written, so that YAML's guess of a type (a number
// for 0123, a date for 2026-01-01) never changes it.
func (r *nodeReader) scalar(node *yaml.Node, target reflect.Value, path string) bool {
	if node.Kind != yaml.ScalarNode {
		r.fail(node, path, "expected "+expected(target)+"; got "+kindName(node))
		return false
	}
	if err := scalarText(target, node); err != nil {
		r.fail(node, path, err.Error())
		return false
	}
	return true
}

func scalarText(target reflect.Value, node *yaml.Node) error {
	wrong := fmt.Errorf("expected %s; got %q", expected(target), cut(node.Value))
	if target.Type() == reflect.TypeFor[time.Duration]() {
		var duration Duration
		if err := duration.UnmarshalText([]byte(node.Value)); err != nil {
			return err
		}
		target.SetInt(int64(duration))
		return nil
	}
	switch _, isText := target.Addr().Interface().(encoding.TextUnmarshaler); {
	case isText:
	case target.Kind() == reflect.Bool:
		if node.Tag != "!!bool" {
			return wrong
		}
	case target.CanInt():
		number, err := strconv.ParseInt(node.Value, 10, target.Type().Bits())
		if err != nil {
			return wrong
		}
		target.SetInt(number)
		return nil
	}
	return parseText(target, node.Value)
}

// list reads a sequence, or a single text as a comma list, as it would stand in a flag.
func (r *nodeReader) list(node *yaml.Node, target reflect.Value, path string, depth int) bool {
	if node.Kind == yaml.ScalarNode {
		return r.scalar(node, target, path)
	}
	if node.Kind != yaml.SequenceNode {
		r.fail(node, path, "expected "+expected(target)+"; got "+kindName(node))
		return false
	}
	list, good := reflect.MakeSlice(target.Type(), 0, len(node.Content)), true
	for index, item := range node.Content {
		element := reflect.New(target.Type().Elem()).Elem()
		itemPath := fmt.Sprintf("%s[%d]", path, index)
		r.loaded.sources[itemPath] = r.source(item)
		good = r.value(item, element, itemPath, depth+1) && good
		list = reflect.Append(list, element)
	}
	target.Set(list)
	return good
}

// table reads a mapping with free keys.
func (r *nodeReader) table(node *yaml.Node, target reflect.Value, path string, depth int) bool {
	if node.Kind != yaml.MappingNode {
		r.fail(node, path, "expected "+expected(target)+"; got "+kindName(node))
		return false
	}
	target.Set(reflect.MakeMap(target.Type()))
	before := len(r.loaded.Problems)
	r.mapping(node, path, func(key string, keyNode, value *yaml.Node) {
		element := reflect.New(target.Type().Elem()).Elem()
		r.loaded.sources[path+"."+key] = r.source(keyNode)
		// A name that can't be a channel type is quoted and cut where it is complained of.
		r.loaded.sources[path+"."+fmt.Sprintf("%.40q", key)] = r.source(keyNode)
		if r.value(value, element, path+"."+key, depth+1) {
			target.SetMapIndex(reflect.ValueOf(key), element)
		}
	})
	return len(r.loaded.Problems) == before
}

// structure reads a mapping whose keys are the fields of a struct, by their yaml tags.
func (r *nodeReader) structure(node *yaml.Node, target reflect.Value, path string, depth int) bool {
	if node.Kind != yaml.MappingNode {
		r.fail(node, path, "expected "+expected(target)+"; got "+kindName(node))
		return false
	}
	known := keysOf(target.Type())
	before := len(r.loaded.Problems)
	r.mapping(node, path, func(key string, keyNode, value *yaml.Node) {
		index := slices.Index(known, key)
		if index < 0 || key == "" {
			r.fail(keyNode, path, fmt.Sprintf("unknown key %q%s; known are %s", cut(key), suggestion(key, known), list(known)))
			return
		}
		r.loaded.sources[path+"."+key] = r.source(value)
		r.value(value, target.Field(index), path+"."+key, depth+1)
	})
	return len(r.loaded.Problems) == before
}

// keysOf gives the yaml name of every field of a struct, by field index; empty where it has none.
func keysOf(structure reflect.Type) []string {
	keys := make([]string, structure.NumField())
	for index := range keys {
		name, _, _ := strings.Cut(structure.Field(index).Tag.Get("yaml"), ",")
		if name != "-" && structure.Field(index).IsExported() {
			keys[index] = name
		}
	}
	return keys
}

// list writes the names that are not empty, in order.
func list(names []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" }), ", ")
}

// expected says what a target reads, with an example.
func expected(target reflect.Value) string {
	if target.Type() == reflect.TypeFor[time.Duration]() {
		return Duration(0).Expected()
	}
	if known, ok := target.Interface().(expecter); ok {
		return known.Expected()
	}
	switch target.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list, such as [a, b], each " + expected(reflect.New(target.Type().Elem()).Elem())
	case reflect.Map, reflect.Struct:
		return "NAME: VALUE lines, indented below it"
	case reflect.Pointer:
		return expected(reflect.New(target.Type().Elem()).Elem())
	default:
		return "a whole number, such as 3"
	}
}

// kindName names what a node is for people.
func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "NAME: VALUE lines"
	case yaml.AliasNode:
		return "an alias"
	default:
		return fmt.Sprintf("%q", cut(node.Value))
	}
}
