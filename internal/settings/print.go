package settings

import (
	"bytes"
	"fmt"
	"reflect"

	"gopkg.in/yaml.v3"
)

// Print writes the effective configuration as YAML that is itself a valid configuration, each
// setting with a comment that says where it came from. Secrets and passwords are replaced.
func (l *Loaded) Print() ([]byte, error) {
	effective := l.Settings
	effective.ChannelSettings = l.Settings.EffectiveChannels()
	for _, provider := range effective.Council.Providers() {
		if provider.KeyFile != "" {
			provider.Key = "" // was read from there
		}
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, field := range fields() {
		if !field.InFile {
			continue
		}
		value := field.value(&effective)
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: field.Name}
		if value.IsZero() && field.Default == "" && value.Kind() != reflect.Bool {
			continue
		}
		written, err := valueNode(value)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", field.Name, err)
		}
		comment := l.Source(field.Name).String()
		if written.Kind == yaml.ScalarNode {
			written.LineComment = comment
		} else {
			key.HeadComment = comment
		}
		root.Content = append(root.Content, key, written)
	}
	var output bytes.Buffer
	encoder := yaml.NewEncoder(&output)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return output.Bytes(), encoder.Close()
}

// valueNode writes one value. Text goes through text, which redacts; only maps and plain lists
// are left to the YAML package.
func valueNode(value reflect.Value) (*yaml.Node, error) {
	node := &yaml.Node{}
	switch value.Kind() {
	case reflect.Map, reflect.Struct:
		return node, node.Encode(value.Interface())
	case reflect.Slice:
		node.Kind, node.Style = yaml.SequenceNode, yaml.FlowStyle
		for index := range value.Len() {
			element, err := valueNode(value.Index(index))
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, element)
		}
		return node, nil
	case reflect.Bool:
		return node, node.Encode(value.Bool())
	case reflect.Int, reflect.Int64:
		// Numbers with a unit and "auto" are plain words; quotes would only be noise.
		return &yaml.Node{Kind: yaml.ScalarNode, Value: text(value)}, nil
	default:
		node.SetString(text(value))
		return node, nil
	}
}
