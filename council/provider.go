package council

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/millrace/millrace/proto"
)

// asker is one who can be asked. Its errors are [*failure]s or those of the way there.
type asker interface {
	// ask lets say have the answer to prompt, piece by piece, and returns when it is whole.
	ask(ctx context.Context, prompt string, say func(text string)) error
}

// tokensMax is how much a model may answer: the words that it is asked for, some hundred for models
// that think before they speak, and the verdict.
const tokensMax = 8192

// judge is one seat of a council.
type judge struct {
	Model
	asker    asker
	settings Provider // zero for a rubric
}

// judgesOf gives those that have a key, in an order that stays the same.
func judgesOf(s *Settings, client *http.Client) (judges []judge) {
	seat := func(name, label string, p Provider, who asker) {
		if p.Key != "" {
			judges = append(judges, judge{Model: Model{name, label}, asker: who, settings: p})
		}
	}
	p := withDefaults(s.Gemini, "gemini-2.5-flash", "https://generativelanguage.googleapis.com")
	seat("gemini", "Gemini", p, &gemini{client: client, settings: p})
	p = withDefaults(s.Anthropic, "claude-sonnet-4-5", "https://api.anthropic.com")
	seat("claude", "Claude", p, &anthropic{client: client, settings: p})
	p = withDefaults(s.OpenAI, "gpt-5-mini", "https://api.openai.com/v1")
	seat("gpt", "GPT", p, &chat{client: client, settings: p, limitName: "max_completion_tokens"})
	p = withDefaults(s.Perplexity, "sonar", "https://api.perplexity.ai")
	seat("perplexity", "Perplexity", p, &chat{client: client, settings: p, limitName: "max_tokens"})
	return judges
}

func withDefaults(p Provider, model, baseURL string) Provider {
	orDefault(&p.Model, model)
	orDefault(&p.BaseURL, baseURL)
	p.BaseURL = strings.TrimRight(p.BaseURL, "/")
	return p
}

// message is one of a conversation, as OpenAI and Anthropic write it.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chat speaks OpenAI's Chat Completions, which Perplexity and many others do too.
type chat struct {
	client    *http.Client
	settings  Provider
	limitName string // of the bound of the answer, which has two names
}

// chatChunk is one event of a streamed completion.
type chatChunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
			Refusal string `json:"refusal"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Error *providerError `json:"error"`
}

func (p *chat) ask(ctx context.Context, prompt string, say func(string)) error {
	finished := false // OpenAI says [DONE] behind the reason, Perplexity ends without it
	ask := call{
		url:    p.settings.BaseURL + "/chat/completions",
		header: map[string]string{"Authorization": "Bearer " + string(p.settings.Key)},
		body: map[string]any{
			"model": p.settings.Model, "stream": true, p.limitName: tokensMax,
			"messages": []message{{"system", instruction}, {"user", question(prompt)}},
		},
		event: func(event proto.SSEEvent, say func(string)) (bool, error) {
			if event.Data == "[DONE]" {
				if !finished {
					return false, fail(BrokenOff, "the answer broke off")
				}
				return true, nil
			}
			var chunk chatChunk
			if json.Unmarshal([]byte(event.Data), &chunk) != nil {
				return false, errNotTheFormat
			}
			if chunk.Error != nil {
				return false, midway(chunk.Error)
			}
			for _, choice := range chunk.Choices {
				say(choice.Delta.Content + choice.Delta.Refusal)
				if choice.FinishReason == "content_filter" {
					return false, fail(Declined, "the model would not answer (content_filter)")
				}
				finished = finished || choice.FinishReason != ""
			}
			return finished, nil
		},
	}
	return ask.run(ctx, p.client, say)
}

// anthropic speaks Anthropic's Messages.
type anthropic struct {
	client   *http.Client
	settings Provider
}

// anthropicVersion is the version of the protocol that is spoken here.
const anthropicVersion = "2023-06-01"

// anthropicEvent is any event of a streamed message.
type anthropicEvent struct {
	Type  string `json:"type"`
	Delta struct {
		Type       string `json:"type"`
		Text       string `json:"text"`
		StopReason string `json:"stop_reason"`
	} `json:"delta"`
	Error *providerError `json:"error"`
}

func (p *anthropic) ask(ctx context.Context, prompt string, say func(string)) error {
	ask := call{
		url:    p.settings.BaseURL + "/v1/messages",
		header: map[string]string{"X-Api-Key": string(p.settings.Key), "Anthropic-Version": anthropicVersion},
		body: map[string]any{
			"model": p.settings.Model, "stream": true, "max_tokens": tokensMax, "system": instruction,
			"messages": []message{{"user", question(prompt)}},
		},
		event: func(event proto.SSEEvent, say func(string)) (bool, error) {
			var told anthropicEvent
			if json.Unmarshal([]byte(event.Data), &told) != nil {
				return false, errNotTheFormat
			}
			switch told.Type {
			case "content_block_delta":
				if told.Delta.Type == "text_delta" { // others are thoughts and signatures
					say(told.Delta.Text)
				}
			case "message_delta":
				if told.Delta.StopReason == "refusal" {
					return false, fail(Declined, "the model would not answer (refusal)")
				}
			case "message_stop":
				return true, nil
			case "error":
				if told.Error == nil {
					return false, errNotTheFormat
				}
				return false, midway(told.Error)
			}
			return false, nil // pings, and events that are yet to be invented
		},
	}
	return ask.run(ctx, p.client, say)
}

// gemini speaks Google's streamGenerateContent.
type gemini struct {
	client   *http.Client
	settings Provider
}

// geminiChunk is one event of a streamed answer.
type geminiChunk struct {
	Candidates []struct {
		Content struct {
			Parts []struct {
				Text    string `json:"text"`
				Thought bool   `json:"thought"`
			} `json:"parts"`
		} `json:"content"`
		FinishReason string `json:"finishReason"`
	} `json:"candidates"`
	PromptFeedback struct {
		BlockReason string `json:"blockReason"`
	} `json:"promptFeedback"`
	Error *providerError `json:"error"`
}

// geminiContent is a turn of a conversation.
type geminiContent struct {
	Role  string       `json:"role,omitempty"`
	Parts []geminiPart `json:"parts"`
}

type geminiPart struct {
	Text string `json:"text"`
}

func (p *gemini) ask(ctx context.Context, prompt string, say func(string)) error {
	ask := call{
		url: p.settings.BaseURL + "/v1beta/models/" + p.settings.Model + ":streamGenerateContent?alt=sse",
		// Not in the address, as many examples have it: addresses reach logs.
		header: map[string]string{"X-Goog-Api-Key": string(p.settings.Key)},
		body: map[string]any{
			"systemInstruction": geminiContent{Parts: []geminiPart{{instruction}}},
			"contents":          []geminiContent{{Role: "user", Parts: []geminiPart{{question(prompt)}}}},
			"generationConfig":  map[string]any{"maxOutputTokens": tokensMax},
		},
		event: func(event proto.SSEEvent, say func(string)) (bool, error) {
			var chunk geminiChunk
			if json.Unmarshal([]byte(event.Data), &chunk) != nil {
				return false, errNotTheFormat
			}
			return chunk.tell(say)
		},
	}
	return ask.run(ctx, p.client, say)
}

// tell says what a chunk has to say, and reports whether it was the last.
func (c *geminiChunk) tell(say func(string)) (whole bool, err error) {
	if c.Error != nil {
		return false, midway(c.Error)
	}
	if reason := c.PromptFeedback.BlockReason; reason != "" {
		return false, fail(Declined, "the model would not answer (%s)", plainWord(reason))
	}
	if len(c.Candidates) == 0 {
		return false, nil // counts of tokens
	}
	first := c.Candidates[0]
	for _, part := range first.Content.Parts {
		if !part.Thought {
			say(part.Text)
		}
	}
	switch first.FinishReason {
	case "", "FINISH_REASON_UNSPECIFIED":
		return false, nil
	case "STOP", "MAX_TOKENS":
		return true, nil
	default:
		return false, fail(Declined, "the model would not go on (%s)", plainWord(first.FinishReason))
	}
}
