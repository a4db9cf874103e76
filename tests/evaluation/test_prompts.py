import json

import pytest

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.prompts import ClassPrompts, finding_prompts, read_prompts, shipped_prompts
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import phantom

SHIPPED_PROMPTS = shipped_prompts()


def normalised(sentence):
    return " ".join(sentence.casefold().replace(",", " ").split()).rstrip(".")


def test_every_concept_has_ten_distinct_prompts():
    assert set(SHIPPED_PROMPTS) == set(load_table("chest21").names)
    assert {len(prompts) for prompts in SHIPPED_PROMPTS.values()} == {10}
    texts = [text for prompts in SHIPPED_PROMPTS.values() for text in prompts]
    assert len({text.lower() for text in texts}) == 210


def test_prompts_are_read_as_windows_editors_save_them(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_bytes('{"Mass": ["a mass"]}'.encode("utf-8-sig"))
    assert read_prompts(str(path)) == {"Mass": ("a mass",)}


def test_finding_prompts_are_limited_and_in_the_order_of_the_findings():
    config = EvaluationConfig(findings=("Mass", "Edema"), num_prompts=3)
    prompts = finding_prompts(config)
    assert list(prompts) == ["Mass", "Edema"]
    assert prompts["Edema"] == SHIPPED_PROMPTS["Edema"][:3]


def test_multi_label_has_normal_prompts_and_none_for_abnormal():
    config = EvaluationConfig(task="multi_label", findings=("Abnormal", "Edema"))
    assert list(finding_prompts(config)) == ["Edema", "No Finding"]


def test_prompts_are_read_from_a_file(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"Edema": ["wet lung"], "Mass": ["a lump", "a tumour"]}))
    config = EvaluationConfig(findings=("Mass", "Edema"), prompts=str(path))
    flat = ClassPrompts.of(finding_prompts(config))
    assert flat.texts == ("a lump", "a tumour", "wet lung")
    assert flat.class_index.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "`prompts` must be a JSON file .* Check the path"),
        ("{", "It is not JSON at line 1, column 2"),
        ("[1]", "a JSON file {class.*Received: 'list'"),
        ("{}", "at least one class"),
        ('{"Edema": []}', r"`prompts\['Edema'\]` must be a list of at least one"),
        ('{"Edema": ["ok", " "]}', "non-empty string"),
        ('{"Edema": "wet"}', "a list of"),
    ],
)
def test_invalid_prompt_files_are_refused(tmp_path, content, sentence):
    path = tmp_path / "prompts.json"
    if content:
        path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        read_prompts(str(path))


def test_a_finding_without_prompts_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"Received: 'Plural Effusion'\. Near names: Pleural Effusion"):
        finding_prompts(EvaluationConfig(findings=("Plural Effusion", "Edema")))


def test_prompts_are_not_sentences_of_the_phantom_grammar(tmp_path):
    phantom.write_phantom(tmp_path, seed=1, num_paired=1, num_image_only=1, num_text_only=400)
    reports = [phantom.read_report(row) for row in phantom.report_rows(str(tmp_path))]
    written = {normalised(sentence) for report in reports for s in report for sentence in s.text.split(". ")}
    assert len(written) > 200
    prompts = {normalised(prompt) for prompts in SHIPPED_PROMPTS.values() for prompt in prompts}
    assert not prompts & written


def test_prompts_state_their_own_finding_and_no_other_of_the_default_five():
    table = load_table("chest21")
    labeller = ReportLabeller(table)
    five = EvaluationConfig().findings
    stated = []
    for name, prompts in SHIPPED_PROMPTS.items():
        for prompt in prompts:
            states = labeller.label((Section("findings", prompt),)).states
            own = states[table.index(name)]
            assert own != LabelState.NEGATIVE
            stated.append(own == LabelState.POSITIVE)
            if name in five:
                others = [other for other in five if other != name]
                positive = [other for other in others if states[table.index(other)] == LabelState.POSITIVE]
                assert not positive, prompt
            if name == NO_FINDING:
                assert not (states[1:] == LabelState.POSITIVE).any()
    assert sum(stated) >= 0.9 * len(stated)


def test_shipped_combinations_are_many_and_their_first_ones_are_of_all_kinds():
    for name, classes in (
        ("chexpert5", ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")),
        ("covid", ("COVID-19", "Pneumonia", "Viral Pneumonia", "Lung Opacity")),
        ("rsna", ("Pneumonia", "Lung Opacity")),
    ):
        prompts = read_prompts(name)
        assert tuple(prompts) == (*classes, NO_FINDING)
        for texts in prompts.values():
            assert len(set(texts)) == len(texts) >= 36
            assert len({text.split()[0] for text in texts[:10]}) > 2
    concepts = {name: {*load_table(name).names} for name in ("chest21", "thorax")}
    assert {*read_prompts("rsna")} <= concepts["chest21"]
    assert {*read_prompts("covid")} <= concepts["thorax"]


def test_combinations_are_every_choice_of_one_word_a_list(tmp_path):
    path = tmp_path / "prompts.json"
    words = {"severity": ["", "mild"], "subtype": ["edema", "congestion"], "location": ["at the base"]}
    path.write_text(json.dumps({"Edema": words}))
    expected = {f"{s}{t} at the base" for s in ("", "mild ") for t in ("edema", "congestion")}
    assert set(read_prompts(str(path))["Edema"]) == expected
    path.write_text(json.dumps({"Edema": {"severity": []}}))
    with pytest.raises(ValueError, match=r"prompts\['Edema'\]\['severity'\].*at least one string"):
        read_prompts(str(path))


def test_negated_contrast_adds_own_negative_prompts_or_shipped_ones(tmp_path):
    path = tmp_path / "prompts.json"
    own = {"Edema": ["wet lung"], "no Edema": ["dry lung"], "Mass": ["a lump"], "No Finding": ["normal"]}
    path.write_text(json.dumps(own))
    config = EvaluationConfig(
        task="multi_label", findings=("Abnormal", "Edema", "Mass"), prompts=str(path), contrast="negated"
    )
    found = finding_prompts(config)
    assert found["no Edema"] == ("dry lung",)
    assert found["no Mass"][0] == "There is no mass."
    flat = ClassPrompts.of(found)
    assert [flat.texts[column] for column in flat.columns("Abnormal")] == ["wet lung", "a lump"]
