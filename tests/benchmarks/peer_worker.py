"""Run a peer in its separate environment, with spaCy and without this project.

    python peer_worker.py negspacy|medspacy assert < requests.jsonl > answers.jsonl
    python peer_worker.py negspacy|medspacy time phrases.txt < texts.jsonl

`assert`: a line holds a sentence and character spans, {"text", "spans": [[start, end], …]}; the answer is a
list of "positive", "negative", "uncertain" or "historical", one a span, by the peer's default rules.
`time`: phrases of a dictionary, one a line, and a text a line, as JSON strings; the answer is one JSON line,
{"seconds", "mentions"}, with the processor's time for the whole pipeline: sentences, the phrases by spaCy's
PhraseMatcher, assertion.
"""

import json
import sys
import time

import spacy

GROUP = "findings"


def start_negspacy(nlp):
    """The assertion step of negspaCy: present or denied."""
    import negspacy.negation  # noqa: F401, registers the component
    from negspacy.termsets import termset

    patterns = termset("en_clinical").get_patterns()
    nlp.add_pipe("negex", config={"neg_termset": patterns, "span_keys": [GROUP]})
    return lambda span: "negative" if span._.negex else "positive"


def start_medspacy(nlp):
    """The assertion step of medspaCy, ConText; what belongs to the family or has not happened is denied."""
    import medspacy.context  # noqa: F401, registers the component

    nlp.add_pipe("medspacy_context", config={"input_span_type": "group", "span_group_name": GROUP})

    def assertion(span):
        if span._.is_negated or span._.is_family:
            return "negative"
        if span._.is_uncertain or span._.is_hypothetical:
            return "uncertain"
        return "historical" if span._.is_historical else "positive"

    return assertion


STARTS = {"negspacy": start_negspacy, "medspacy": start_medspacy}


def answer_requests(peer: str) -> None:
    """Assert spans, one document per given sentence, so that peers differ in assertion only."""
    nlp = spacy.blank("en")
    assertion = STARTS[peer](nlp)
    components = [component for _, component in nlp.pipeline]
    for line in sys.stdin:
        request = json.loads(line)
        doc = nlp.make_doc(request["text"])
        for token in doc:
            token.is_sent_start = token.i == 0
        spans = [doc.char_span(*span, label="F", alignment_mode="expand") for span in request["spans"]]
        doc.spans[GROUP] = spans
        for component in components:
            doc = component(doc)
        print(json.dumps([assertion(span) for span in spans]), flush=True)


def time_texts(peer: str, phrases_path: str) -> None:
    """Print the processor seconds for all texts, without construction."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    ruler = nlp.add_pipe("span_ruler", config={"spans_key": GROUP, "phrase_matcher_attr": "LOWER"})
    with open(phrases_path) as lines:
        ruler.add_patterns([{"label": "F", "pattern": line.strip()} for line in lines])
    assertion = STARTS[peer](nlp)
    texts = [json.loads(line) for line in sys.stdin]
    started = time.process_time()
    mentions = sum(len([assertion(s) for s in doc.spans[GROUP]]) for doc in nlp.pipe(texts))
    print(json.dumps({"seconds": time.process_time() - started, "mentions": mentions}))


if __name__ == "__main__":
    if sys.argv[2] == "assert":
        answer_requests(sys.argv[1])
    else:
        time_texts(sys.argv[1], sys.argv[3])
