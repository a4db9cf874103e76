"""Word pieces derived by hand from a vocabulary of a dozen pieces."""

import json
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tokenizers

from medclip_keras.preprocess.text import Tokenizer, learn_vocabulary, load_tokenizer, read_vocabulary

#             0        1        2        3        4      5       6        7       8      9     10      11
VOCABULARY = ["[CLS]", "[PAD]", "[UNK]", "[SEP]", "no", "lung", "##s", "clear", "are", "s", "Lung", "."]


@pytest.fixture
def tokenizer():
    return Tokenizer(VOCABULARY, lower_case=True, max_tokens=7)


def test_tokens_of_a_sentence_equal_those_derived_by_hand(tokenizer):
    tokens = tokenizer(tf.constant(["Lungs are clear.", "no", ""]))
    expected_ids = [
        [0, 5, 6, 8, 7, 11, 3],  # [CLS] lung ##s are clear . [SEP]
        [0, 4, 3, 1, 1, 1, 1],
        [0, 3, 1, 1, 1, 1, 1],
    ]
    expected_mask = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(tokens["token_ids"], expected_ids)
    np.testing.assert_array_equal(tokens["padding_mask"], expected_mask)
    assert tokens["token_ids"].dtype == tokens["padding_mask"].dtype == tf.int32


@pytest.mark.parametrize(
    ("lower_case", "pieces"), [(True, ["lung", "lung", "clear"]), (False, ["Lung", "lung", "[UNK]"])]
)
def test_case_and_accents_are_kept_by_a_cased_tokenizer_only(lower_case, pieces):
    tokenizer = Tokenizer(VOCABULARY, lower_case=lower_case, max_tokens=4)
    found = tokenizer(tf.constant(["Lung", "lung", "cléar"]))["token_ids"][:, 1]
    np.testing.assert_array_equal(found, [VOCABULARY.index(piece) for piece in pieces])


TEXTS = [
    "Épanchement pleural à gauche, Œdème; Ångström a\u0301bc İSTANBUL",  # composed and combining accents
    "肺炎の所見なし。胸部X光 한국어 \u3000 хрипы Θώραξ ไทย עברית हिन्दी",
    "no-effusion/edema (left>right)… 3.5cm! “quoted” ’s – ¿qué? $5 ^ ` ~ | < 2+2=4 € ''``",
    "½ cm² at 37℃, Größe ß ẞ ﬁbrosis ① ﬀ Σας",  # characters that compatibility forms would replace
    "tab\tnew\nline\u00a0nbsp\u200bzero\ufeff bell\x07 soft\u00adhyphen \ufffd bad",
    *("x" * length for length in (99, 100, 101)),  # the longest word has 100 characters
    "y" * 50 + "z" * 51 + " fits",
    "   ",
]


@pytest.mark.parametrize("lower_case", [True, False])
def test_word_pieces_equal_those_of_the_tokenizers_library(lower_case):
    letters = sorted(
        {c for text in TEXTS for c in text + text.lower() if not c.isspace() and c.isprintable()}
    )
    bases = sorted({unicodedata.normalize("NFD", c)[0] for c in letters} - set(letters))
    words = ["effusion", "edema", "gauche", "##anche", "pan", "##eural", "x" * 99, "x" * 100, "x" * 101]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    vocabulary += [piece for c in (*letters, *bases) for piece in (c, f"##{c}")]
    model = tokenizers.models.WordPiece({piece: n for n, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    peer = tokenizers.Tokenizer(model)
    peer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lower_case)
    peer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    ours = Tokenizer(vocabulary, lower_case=lower_case, max_tokens=130)(tf.constant(TEXTS))
    for text, ids, mask in zip(TEXTS, ours["token_ids"].numpy(), ours["padding_mask"].numpy(), strict=True):
        found = [vocabulary[i] for i in ids[: mask.sum()]]
        assert found == ["[CLS]", *peer.encode(text).tokens, "[SEP]"]


def test_truncation_keeps_the_end_piece():
    short = Tokenizer(VOCABULARY, lower_case=True, max_tokens=4)
    tokens = short(tf.constant(["lungs are clear"]))
    np.testing.assert_array_equal(tokens["token_ids"], [[0, 5, 6, 3]])
    np.testing.assert_array_equal(tokens["padding_mask"], [[1, 1, 1, 1]])


def test_word_ids_number_the_words_of_pieces():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pneu", "##mo", "##thorax", "no", "."]
    tokenizer = Tokenizer(pieces, lower_case=True, max_tokens=9)
    tokens = tokenizer(tf.constant(["No pneumothorax .", "zzz pneumo"]))["token_ids"]
    assert tokens.numpy().tolist() == [[2, 7, 4, 5, 6, 8, 3, 0, 0], [2, 1, 4, 5, 3, 0, 0, 0, 0]]
    words = tokenizer.word_ids(tokens).numpy().tolist()
    assert words == [[-1, 0, 1, 1, 1, 2, -1, -1, -1], [-1, 0, 1, 1, -1, -1, -1, -1, -1]]


def test_graph_batch_and_single_tokens_are_equal(tokenizer):
    texts = ["no lungs", "clear . . . . . . . .", "unknown lung"]
    batched = tokenizer(tf.constant(texts))
    in_graph = tf.function(tokenizer.__call__)(tf.constant(texts))
    singles = [tokenizer(tf.constant([text])) for text in texts]
    for name, value in batched.items():
        np.testing.assert_array_equal(value, in_graph[name])
        np.testing.assert_array_equal(value, tf.concat([single[name] for single in singles], 0))


@pytest.mark.parametrize(("lower_case", "token_id"), [(True, 5), (False, 10)])
def test_load_gives_the_saved_vocabulary_and_its_lower_casing(lower_case, token_id, tmp_path):
    saved = Tokenizer(VOCABULARY, lower_case=lower_case, max_tokens=9)
    saved.save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["lower_case"] is lower_case
    loaded = load_tokenizer(tmp_path)
    assert loaded.vocabulary == tuple(VOCABULARY)
    assert (loaded.lower_case, loaded.max_tokens) == (lower_case, 9)
    assert loaded.fingerprint == saved.fingerprint
    assert loaded(tf.constant(["Lung"]))["token_ids"][0, 1] == token_id


def test_load_refuses_a_missing_tokenizer_and_changed_wordpieces(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"`directory` must be a folder with tokenizer\.json"):
        load_tokenizer(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "wordpieces.txt").write_text("\n".join([*VOCABULARY[:4], "heart", *VOCABULARY[5:]]) + "\n")
    with pytest.raises(ValueError, match=r"wordpieces.txt` must be .* SHA-256"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("vocabulary", "sentence"),
    [
        ([*VOCABULARY, "lung"], r"must be free of duplicates. Received: \"'lung' in lines 6 and 13\""),
        ([*VOCABULARY, ""], "must be free of empty lines. Received: 'nothing in line 13'"),
        (VOCABULARY[:3] + VOCABULARY[4:], r"must be a list that holds .*11 pieces without \[SEP\]"),
    ],
)
def test_vocabulary_that_would_crash_is_refused(vocabulary, sentence):
    with pytest.raises(ValueError, match=sentence):
        Tokenizer(vocabulary, lower_case=True, max_tokens=7)


def test_read_vocabulary_keeps_line_numbers(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("[PAD]\r\nlung\u2028\n##s\n".encode())
    assert read_vocabulary(tmp_path / "vocab.txt") == ["[PAD]", "lung\u2028", "##s"]
    with pytest.raises(ValueError, match="`vocabulary` must be an existing word piece file"):
        read_vocabulary(tmp_path / "absent.txt")


def test_learned_vocabulary_is_deterministic_and_covers_its_texts():
    texts = ["The lungs are clear."] * 6 + ["Left lung opacity."] * 7 + ["Smith"]
    learned = learn_vocabulary(iter(texts), size=60, lower_case=True)
    assert learned == learn_vocabulary(reversed(texts), size=60, lower_case=True)
    assert learned[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"clear", "left", "opacity"} <= set(learned)
    assert "…" in learn_vocabulary(["clear… lungs"] * 6, size=60, lower_case=True)  # as texts are split
    assert "smith" not in learned  # once only: spelled out
    assert "Left" in learn_vocabulary(iter(texts), size=60, lower_case=False)
    tokenizer = Tokenizer(learned, lower_case=True, max_tokens=20)
    token_ids = tokenizer(tf.constant(texts))["token_ids"]
    assert not np.any(token_ids == learned.index("[UNK]"))


def test_learning_needs_a_text():
    with pytest.raises(ValueError, match=r"`texts` must be at least one text\. Received: 'none'"):
        learn_vocabulary(iter([]), size=60, lower_case=True)


def test_bert_vocabulary_loads_and_keeps_its_ids(medclip_data):
    vocabulary = read_vocabulary(medclip_data / "bert_vocab" / "vocab.txt")
    assert len(vocabulary) == 30522
    tokenizer = Tokenizer(vocabulary, lower_case=True, max_tokens=12)
    tokens = tokenizer(tf.constant(["No pneumothorax"]))
    pieces = [vocabulary[i] for i in tokens["token_ids"][0, : int(tf.reduce_sum(tokens["padding_mask"]))]]
    assert tokens["token_ids"][0, 0] == 101
    assert pieces[:2] == ["[CLS]", "no"]
    assert "".join(pieces[2:-1]).replace("##", "") == "pneumothorax"
