"""The command line: what it shows, what it writes, what it refuses."""

import json
import subprocess
import sys

import pytest

from medclip_keras.knowledge.__main__ import main

REPORT = "HISTORY: Pneumonia?\nFINDINGS: No effusion. Large heart."


def processor_seconds(code: str, folder) -> tuple[list[str], float]:
    """The lines that a Python process prints, and its processor time."""
    code = f"{code}\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    *lines, seconds = process.stdout.splitlines()
    return lines, float(seconds)


def test_the_process_shows_a_report_quickly_and_writes_nothing(tmp_path):
    code = f"import sys; sys.argv = ['knowledge', {REPORT!r}]; " + (
        "import runpy\n"
        "try: runpy.run_module('medclip_keras.knowledge', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'tensorflow', 'keras', 'torch', 'apache_beam'} & set(sys.modules)))"
    )
    lines, seconds = processor_seconds(code, tmp_path)
    assert lines[2].startswith("FINDINGS No «effusion»[1 -]. «Large heart»[2 +].")
    assert lines[-3:] == ["[+] Cardiomegaly", "[-] Pleural Effusion", "[]"]
    assert "\x1b" not in "".join(lines)
    _, spacy_alone = processor_seconds("import spacy", tmp_path)
    assert seconds < 10 * spacy_alone  # five times as long on an idle machine; TensorFlow's import adds six
    assert not list(tmp_path.iterdir())


def test_standard_input_and_file_are_read_alike(tmp_path, capsys, monkeypatch):
    path = tmp_path / "report.txt"
    path.write_text(REPORT)
    assert main([REPORT]) == main(["--file", str(path)]) == 0
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["-"]) == 0
    shown = capsys.readouterr().out
    assert shown == 3 * shown[: len(shown) // 3]
    assert shown.count("[+] Cardiomegaly") == 3


def test_json_is_the_line_of_the_mentions_file_with_cue_and_rule(tmp_path, capsys):
    path = tmp_path / "r17.txt"
    path.write_text(REPORT)
    assert main(["--file", str(path), "--json", "--concepts", "chexpert14"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "report_id": "r17",
        "findings": {"Cardiomegaly": "positive", "Pleural Effusion": "negative"},
        "mentions": [
            {
                "cui": "C0032227", "name": "Pleural Effusion", "section": "findings", "start": 3, "end": 11,
                "assertion": "negative", "cue": "no", "rule": "effusion",
            },
            {
                "cui": "C0018800", "name": "Cardiomegaly", "section": "findings", "start": 13, "end": 24,
                "assertion": "positive", "cue": "",
                "rule": "(big|large|dilated|prominent) (heart|cardiac silhouette|cardiac shadow|heart size)",
            },
        ],
    }  # fmt: skip


def test_misspelled_words_are_linked_as_in_the_job_unless_the_threshold_is_0(capsys):
    assert main(["Small plueral efusion.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {"Pleural Effusion": "positive"}
    assert main(["Small plueral efusion.", "--json", "--link_threshold", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {}


def test_report_is_read_in_its_language_or_in_the_given_one(capsys):
    assert main(["Klinik: Pneumonie? Befund: Kein Erguss. Herz vergrößert.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {
        "Cardiomegaly": "positive",
        "Pleural Effusion": "negative",
    }
    assert main(["Geen pneumothorax."]) == 1
    assert "`text` must be a report in de, en, es. Received: '2 words'." in capsys.readouterr().err
    assert main(["Pneumothorax.", "--json", "--language", "es"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == {}
    assert main(["Edema.", "--language", "fr"]) == 1
    assert "`language` must be one of auto, de, en, es. Received: 'fr'." in capsys.readouterr().err


def test_a_reader_that_stops_early_ends_the_command_quietly():
    command = f"{sys.executable} -m medclip_keras.knowledge {REPORT!r} | head -c 9"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("INDICATIO", "")


def test_html_writes_only_the_page_and_escapes_the_report(tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["<script>alert(1)</script> No effusion.", "--html", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"\nPage: {page}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "&lt;script&gt;alert(1)" in page.read_text()
    assert "<script>alert(1)" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "`text` must be given once: in quotation marks, as - for the standard input, or with --file"),
        (["Edema.", "--file", "x.txt"], "`text` must be given once"),
        (["  "], "`text` must be a report"),
        (["--file", "nowhere.txt"], "`--file` must be a file that can be read. Received: 'nowhere.txt'."),
        (
            ["HISTORY: Secret cough.\nsecret mass"],
            "`text` must be a report with text under findings, impression, addendum, or under no heading. "
            "Received: \"indication (the heading 'HISTORY:')\". No heading of findings or impression was "
            "seen, and no blank line, line in upper case or sentence about findings ends the last one.",
        ),
        (["…"], "`text` must be a report with text under findings"),
        (["Edema.", "--concepts", "chest12"], "Shipped tables: chest21, chexpert14, thorax."),
        (["Edema.", "--html", "/nowhere/page.html"], "`--html` must be a file that can be written"),
    ],
    ids=lambda value: "",
)
def test_invalid_arguments_are_refused(arguments, sentence, capsys):
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert sentence in output.err
    assert "Secret" not in output.err
    assert output.out == ""


def test_binary_file_is_refused(tmp_path, capsys):
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert main(["--file", str(path)]) == 1
    assert "`text` must be in UTF-8. Received: '8 bytes in another encoding'." in capsys.readouterr().err
