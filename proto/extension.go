package proto

import "strings"

// deflateName is the extension of RFC 7692.
const deflateName = "permessage-deflate"

// NegotiateDeflate reads what extensions a client offers, in its order (RFC 6455, 9.1), and gives
// the value of Sec-WebSocket-Extensions that accepts the first offer of permessage-deflate that can
// be (RFC 7692, 5.1 and 7.1), "" where none can. Each accepted offer is answered with both
// no_context_takeover parameters: messages are compressed once for everybody, and nothing is kept of
// those that come. An offer is declined if it has a parameter that RFC 7692 does not define, one
// twice, one with a value that is not allowed, or if it wants a window of less than 15 bits from us.
// The error says that the header is not written as RFC 6455, 9.1 says.
func NegotiateDeflate(values []string) (answer string, failure *UpgradeError) {
	for _, value := range values {
		for rest := value; rest != ""; {
			var offer []extensionParameter
			var ok bool
			if offer, rest, ok = parseExtension(rest); !ok {
				return "", badUpgrade("Sec-WebSocket-Extensions is not a list of extensions")
			}
			if answer == "" && len(offer) > 0 {
				answer = acceptDeflate(offer)
			}
		}
	}
	return answer, nil
}

// extensionParameter is one parameter of an offer; the first of an offer is its name.
type extensionParameter struct {
	name, value string
	hasValue    bool
}

// acceptDeflate answers one offer, with "" if it is declined (RFC 7692, 7.1).
func acceptDeflate(offer []extensionParameter) (answer string) {
	if offer[0].name != deflateName || offer[0].hasValue {
		return ""
	}
	answer = deflateName + "; server_no_context_takeover; client_no_context_takeover"
	for i, parameter := range offer[1:] {
		for _, earlier := range offer[1 : 1+i] {
			if earlier.name == parameter.name { // RFC 7692, 7.1
				return ""
			}
		}
		switch parameter.name {
		case "server_no_context_takeover", "client_no_context_takeover": // RFC 7692, 7.1.1
			if parameter.hasValue {
				return ""
			}
		case "server_max_window_bits": // RFC 7692, 7.1.2.1
			if parameter.value != "15" {
				return ""
			}
			answer += "; server_max_window_bits=15"
		case "client_max_window_bits": // RFC 7692, 7.1.2.2: a hint that need not be answered
			if parameter.hasValue && !isWindowBits(parameter.value) {
				return ""
			}
		default:
			return ""
		}
	}
	return answer
}

// isWindowBits reports whether value is 8 to 15, without a leading zero (RFC 7692, 7.1.2).
func isWindowBits(value string) bool {
	switch value {
	case "8", "9", "10", "11", "12", "13", "14", "15":
		return true
	}
	return false
}

// parseExtension reads one element of an extension list and what stands behind its comma (RFC 6455,
// 9.1). An empty element has no parameters.
func parseExtension(text string) (parameters []extensionParameter, rest string, ok bool) {
	for {
		var one extensionParameter
		text = strings.TrimLeft(text, " \t")
		one.name, text = cutToken(text)
		if one.name == "" {
			empty := parameters == nil && (text == "" || text[0] == ',')
			return nil, strings.TrimPrefix(text, ","), empty
		}
		text = strings.TrimLeft(text, " \t")
		if strings.HasPrefix(text, "=") && parameters != nil {
			one.hasValue = true
			if one.value, text, ok = cutValue(strings.TrimLeft(text[1:], " \t")); !ok {
				return nil, "", false
			}
			text = strings.TrimLeft(text, " \t")
		}
		parameters = append(parameters, one)
		switch {
		case text == "":
			return parameters, "", true
		case text[0] == ',':
			return parameters, text[1:], true
		case text[0] != ';':
			return nil, "", false
		}
		text = text[1:]
	}
}

// cutToken cuts the token (RFC 9110, 5.6.2) off the beginning of text.
func cutToken(text string) (token, rest string) {
	end := 0
	for end < len(text) && tokenByte[text[end]] {
		end++
	}
	return text[:end], text[end:]
}

// cutValue cuts a parameter's value off the beginning of text: a token, or one in quotes (RFC 6455,
// 9.1: "the value after quoted-string unescaping MUST conform to the 'token' ABNF").
func cutValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		value, rest = cutToken(text)
		return value, rest, value != ""
	}
	var plain strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return plain.String(), text[i+1:], plain.Len() > 0
		case c == '\\' && i+1 < len(text):
			i++
			if !tokenByte[text[i]] {
				return "", "", false
			}
			plain.WriteByte(text[i])
		case !tokenByte[c]:
			return "", "", false
		default:
			plain.WriteByte(c)
		}
	}
	return "", "", false
}
