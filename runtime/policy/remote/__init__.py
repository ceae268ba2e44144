"""A VLM that is served elsewhere, through an OpenAI-compatible endpoint, with a deadline and a stand-in on board.

`vlm` decides who answers, by the rules of `breaker`; `link` asks in a thread of its own; `chat` says what a question
and an answer look like in JSON, `pictures` how an image travels; `transport` is HTTP within bounds of time and size.
"""
